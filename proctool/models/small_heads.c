/* Causal attention for small heads (a few numbers each) on a CPU: forward and backward.
 *
 * Library kernels are made of matrix products, which heads of 4 or 8 numbers leave nearly empty. Here one (sample,
 * head) pair is taken at a time: its keys and values, turned so that positions lie side by side, stay in the first
 * cache, and the vector lanes run over positions. Scores are never written to memory; the backward pass makes them
 * again from the saved log-sum-exp. Every pair is computed by one thread alone, so threads do not change a bit.
 *
 * q, k, v: (B, H, T, D) float32 with any strides but 1 along D. out, grad_out, dq, dk, dv: (B, T, H, D) without gaps.
 * lse: (B, H, T). scratch: `threads` areas of scratch_floats(T, D) floats.
 */
#include <stdint.h>
#include <string.h>

#ifdef _OPENMP
#include <omp.h>
#define THREAD omp_get_thread_num()
#else
#define THREAD 0
#endif

#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#define INLINE static inline __attribute__((always_inline))
#define LOWEST -1e30f

typedef float floats __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));

typedef struct {
    const float *start;
    int64_t batch, head, token; /* strides in floats */
} View;

#if LANES == 16
static const ints LANE = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
#else
static const ints LANE = {0, 1, 2, 3, 4, 5, 6, 7};
#endif

INLINE floats where(ints mask, floats yes, floats no) { return (floats)(((ints)yes & mask) | ((ints)no & ~mask)); }

/* e^x for x <= 0, to 2 units in the last place: 2^n times a polynomial on [-1/2, 1/2]. */
INLINE floats exp_negative(floats x) {
    x = where(x < -87.0f, x * 0 - 87.0f, x);
    floats scaled = x * 1.44269504f;
    ints n = __builtin_convertvector(scaled - 0.5f, ints);
    floats f = scaled - __builtin_convertvector(n, floats);
    floats p = f * 1.5403530e-4f + 1.3333558e-3f;
    p = p * f + 9.6181291e-3f;
    p = p * f + 5.5504109e-2f;
    p = p * f + 2.4022651e-1f;
    p = p * f + 6.9314718e-1f;
    p = p * f + 1.0f;
    return p * (floats)((n + 127) << 23);
}

INLINE float sum_of(floats x) {
    float sum = 0;
    for (int lane = 0; lane < LANES; lane++) sum += x[lane];
    return sum;
}

INLINE int64_t blocks(int64_t tokens) { return (tokens + LANES - 1) / LANES; }

int64_t scratch_floats(int64_t tokens, int64_t size) { return (4 * size + 1) * blocks(tokens) * LANES; }

/* (T, D) rows to blocks of LANES positions, each (D, LANES); positions past the last are zero. */
INLINE void turn(const float *from, int64_t stride, floats *to, int64_t tokens, int size) {
    float *flat = (float *)to;
    memset(flat + (blocks(tokens) - 1) * size * LANES, 0, sizeof(floats) * size);
    for (int64_t s = 0; s < tokens; s++)
        for (int d = 0; d < size; d++) flat[((s / LANES) * size + d) * LANES + s % LANES] = from[s * stride + d];
}

/* Scores of the query at position t with one block of keys; LOWEST at positions after t. */
INLINE floats scores(const float *query, const floats *keys, float scale, int64_t t, int64_t block, int size) {
    floats sum = query[0] * keys[0];
    for (int d = 1; d < size; d++) sum += query[d] * keys[d];
    sum *= scale;
    int32_t seen = (int32_t)(t - block * LANES);
    return seen >= LANES - 1 ? sum : where(LANE > seen, sum * 0 + LOWEST, sum);
}

INLINE void forward_pair(View q, View k, View v, int64_t b, int64_t h, int64_t heads, int64_t tokens, int size,
                         float scale, float *out, float *lse, float *scratch) {
    int64_t count = blocks(tokens);
    floats *keys = (floats *)scratch, *values = keys + size * count, *row = values + size * count;
    turn(k.start + b * k.batch + h * k.head, k.token, keys, tokens, size);
    turn(v.start + b * v.batch + h * v.head, v.token, values, tokens, size);
    for (int64_t t = 0; t < tokens; t++) {
        const float *query = q.start + b * q.batch + h * q.head + t * q.token;
        int64_t seen = blocks(t + 1);
        floats best = scores(query, keys, scale, t, 0, size);
        row[0] = best;
        for (int64_t i = 1; i < seen; i++) {
            row[i] = scores(query, keys + i * size, scale, t, i, size);
            best = where(row[i] > best, row[i], best);
        }
        float most = best[0];
        for (int lane = 1; lane < LANES; lane++) most = best[lane] > most ? best[lane] : most;
        floats total = {0}, sums[size];
        for (int d = 0; d < size; d++) sums[d] = total;
        for (int64_t i = 0; i < seen; i++) {
            floats p = exp_negative(row[i] - most);
            total += p;
            for (int d = 0; d < size; d++) sums[d] += p * values[i * size + d];
        }
        float mass = sum_of(total);
        float *to = out + ((b * tokens + t) * heads + h) * size;
        for (int d = 0; d < size; d++) to[d] = sum_of(sums[d]) / mass;
        lse[(b * heads + h) * tokens + t] = most + __builtin_logf(mass);
    }
}

INLINE void backward_pair(View q, View k, View v, int64_t b, int64_t h, int64_t heads, int64_t tokens, int size,
                          float scale, const float *out, const float *lse, const float *grad_out, float *dq, float *dk,
                          float *dv, float *scratch) {
    int64_t count = blocks(tokens);
    floats *keys = (floats *)scratch, *values = keys + size * count;
    floats *grad_keys = values + size * count, *grad_values = grad_keys + size * count;
    turn(k.start + b * k.batch + h * k.head, k.token, keys, tokens, size);
    turn(v.start + b * v.batch + h * v.head, v.token, values, tokens, size);
    memset(grad_keys, 0, sizeof(floats) * 2 * size * count);
    for (int64_t t = 0; t < tokens; t++) {
        const float *query = q.start + b * q.batch + h * q.head + t * q.token;
        int64_t place = ((b * tokens + t) * heads + h) * size, seen = blocks(t + 1);
        const float *coming = grad_out + place;
        float shift = lse[(b * heads + h) * tokens + t], delta = 0;
        floats sums[size], zero = {0};
        for (int d = 0; d < size; d++) {
            delta += coming[d] * out[place + d];
            sums[d] = zero;
        }
        for (int64_t i = 0; i < seen; i++) {
            const floats *key = keys + i * size, *value = values + i * size;
            floats p = exp_negative(scores(query, key, scale, t, i, size) - shift), g = zero - delta;
            if (i == seen - 1) p = where(LANE > (int32_t)(t - i * LANES), zero, p);
            for (int d = 0; d < size; d++) g += coming[d] * value[d];
            g *= p * scale;
            for (int d = 0; d < size; d++) {
                sums[d] += g * key[d];
                grad_keys[i * size + d] += g * query[d];
                grad_values[i * size + d] += p * coming[d];
            }
        }
        for (int d = 0; d < size; d++) dq[place + d] = sum_of(sums[d]);
    }
    for (int64_t s = 0; s < tokens; s++)
        for (int d = 0; d < size; d++) {
            int64_t place = ((b * tokens + s) * heads + h) * size + d;
            dk[place] = grad_keys[(s / LANES) * size + d][s % LANES];
            dv[place] = grad_values[(s / LANES) * size + d][s % LANES];
        }
}

#define EVERY_PAIR(CALL)                                                                                              \
    _Pragma("omp parallel for schedule(static) num_threads(threads)") for (int64_t pair = 0; pair < batch * heads;    \
                                                                           pair++) {                                  \
        float *mine = scratch + THREAD * scratch_floats(tokens, size);                                                \
        int64_t b = pair / heads, h = pair % heads;                                                                   \
        CALL;                                                                                                         \
    }

/* The compiler unrolls what is constant, so common sizes get code of their own. */
#define BY_SIZE(CALL)                                                                                                 \
    switch (size) {                                                                                                   \
        case 4: EVERY_PAIR(CALL(4)) break;                                                                            \
        case 8: EVERY_PAIR(CALL(8)) break;                                                                            \
        case 16: EVERY_PAIR(CALL(16)) break;                                                                          \
        default: EVERY_PAIR(CALL((int)size)) break;                                                                   \
    }

/* strides: batch, head and token of q, then of k, then of v. */
static View view(const float *start, const int64_t *strides) {
    View made = {start, strides[0], strides[1], strides[2]};
    return made;
}

void forward(const float *q_, const float *k_, const float *v_, const int64_t *strides, int64_t batch, int64_t heads,
             int64_t tokens, int64_t size, float scale, float *out, float *lse, float *scratch, int threads) {
    View q = view(q_, strides), k = view(k_, strides + 3), v = view(v_, strides + 6);
#define FORWARD(D) forward_pair(q, k, v, b, h, heads, tokens, D, scale, out, lse, mine)
    BY_SIZE(FORWARD)
}

void backward(const float *q_, const float *k_, const float *v_, const int64_t *strides, int64_t batch, int64_t heads,
              int64_t tokens, int64_t size, float scale, const float *out, const float *lse, const float *grad_out,
              float *dq, float *dk, float *dv, float *scratch, int threads) {
    View q = view(q_, strides), k = view(k_, strides + 3), v = view(v_, strides + 6);
#define BACKWARD(D) backward_pair(q, k, v, b, h, heads, tokens, D, scale, out, lse, grad_out, dq, dk, dv, mine)
    BY_SIZE(BACKWARD)
}
