"""The loss head of accelerators, on a CPU: its loss and gradients against float64, and what it moves through memory."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from proctool.errors import Notice
from proctool.models.build import build_model
from proctool.training import head, loss
from proctool.training.head import Bend, fused_loss
from proctool.training.loss import TargetLoss
from tests.models.tiny import tiny_config

T, D, V = 50, 16, 257
BENDS = [Bend(), Bend(cap=0.5), Bend(cap=2.0, factors=(0.25, 3.0), divisor=1.5)]
WHOLE, CHUNKS, ROWS = T * 320, 7 * 320, 1


def made(dtype: torch.dtype, has_bias: bool) -> tuple[Tensor, Tensor, nn.Linear]:
    """Hidden states, labels and a head whose numbers are exact in `dtype`."""
    generator = torch.Generator().manual_seed(0)
    output = nn.Linear(D, V, bias=has_bias)
    with torch.no_grad():
        for parameter in output.parameters():
            parameter.copy_((torch.randn(parameter.shape, generator=generator) * 0.5).to(dtype))
    hidden = torch.randn((T, D), generator=generator).to(dtype).float().requires_grad_()
    return hidden, torch.randint(V, (T,), generator=generator), output


def exact(hidden: Tensor, labels: Tensor, output: nn.Linear, bend: Bend) -> list[Tensor]:
    """The loss and its gradients (hidden states, weight, bias) in float64, by autograd."""
    given = [each.detach().double().requires_grad_() for each in (hidden, *output.parameters())]
    logits = bend(functional.linear(*given))
    total = functional.cross_entropy(logits, labels, reduction="sum")
    return [total.detach(), *torch.autograd.grad(total, given)]


def distance(found: Tensor | None, expected: Tensor) -> float:
    """The norm of the difference, as a part of the expected norm."""
    assert found is not None
    return float((found.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("bend", BENDS)
@pytest.mark.parametrize("at_once", [WHOLE, CHUNKS, ROWS])
@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize(("dtype", "margin"), [(torch.float32, 2e-6), (torch.bfloat16, 8e-3)])
def test_loss_and_gradients_are_those_of_float64(
    dtype: torch.dtype, margin: float, has_bias: bool, at_once: int, bend: Bend
) -> None:
    hidden, labels, output = made(dtype, has_bias)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        found = fused_loss(hidden, labels, output, bend, at_once)
    (3 * found).backward()  # type: ignore[no-untyped-call]
    gradients = [hidden.grad, *(each.grad for each in output.parameters())]
    expected = exact(hidden, labels, output, bend)
    assert found.dtype == torch.float32
    assert distance(found.detach(), expected[0]) < margin / 4
    for gradient, right in zip(gradients, expected[1:], strict=True):
        assert gradient is not None
        assert gradient.dtype == torch.float32
        assert distance(gradient / 3, right) < margin


@pytest.mark.parametrize("trained", ["hidden", "head"])
def test_what_is_frozen_gets_no_gradient_and_the_rest_the_same(trained: str) -> None:
    hidden, labels, output = made(torch.float32, True)
    expected = exact(hidden, labels, output, Bend())
    output.requires_grad_(trained == "head")
    hidden.requires_grad_(trained == "hidden")
    fused_loss(hidden, labels, output, Bend(), CHUNKS).backward()  # type: ignore[no-untyped-call]
    found = [hidden.grad, *(each.grad for each in output.parameters())]
    for gradient, right, is_trained in zip(
        found, expected[1:], (trained == "hidden", trained == "head", trained == "head"), strict=True
    ):
        assert (gradient is not None) == is_trained
        assert gradient is None or distance(gradient, right) < 2e-6


def test_a_weight_in_bf16_gets_the_sum_of_many_chunks_without_their_roundings() -> None:
    """As under FSDP2, where the head's weight is in bf16: fp32 sums, which are rounded once."""
    generator = torch.Generator().manual_seed(1)
    hidden = (1 + 0.1 * torch.randn((600, D), generator=generator)).bfloat16()
    labels = torch.zeros(600, dtype=torch.long)
    output = nn.Linear(D, V, bias=False).bfloat16()
    nn.init.normal_(output.weight, std=0.2, generator=generator)
    expected = exact(hidden, labels, output, Bend())
    fused_loss(hidden, labels, output, Bend(), 320).backward()  # type: ignore[no-untyped-call]
    assert distance(output.weight.grad, expected[2]) < 1e-2
    output.weight.grad = None
    loss._InChunks.apply(lambda part: output(part).float(), 1, hidden, labels, output.weight).backward()  # type: ignore[no-untyped-call]
    assert distance(output.weight.grad, expected[2]) < 1e-2


@pytest.mark.parametrize(("family", "tied"), [("gpt2", True), ("gpt2", False), ("gemma2", True), ("phi", False)])
def test_a_model_gets_the_gradients_it_gets_on_a_cpu(family: str, tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with the head tied to the embeddings, and from two micro-batches."""
    config = tiny_config(family)
    config.vocab_size, config.tie_word_embeddings = V, tied
    tokens = torch.randint(V, (4, 12), generator=torch.Generator().manual_seed(2))

    def gradients(cuts: int) -> list[Tensor]:
        model = build_model(config, seed=0)
        module = TargetLoss(model)
        for part in tokens.chunk(cuts):
            places = torch.arange(part.numel()).view(part.shape)[:, :-1].reshape(-1)
            module(part, places, part[:, 1:].reshape(-1)).backward()
        return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]

    expected = gradients(1)
    used: list[int] = []
    monkeypatch.setattr(loss, "is_faster", lambda output, hidden, vocabulary: True)
    monkeypatch.setattr(loss, "fused_loss", lambda *given: used.append(1) or fused_loss(*given))
    monkeypatch.setattr(head, "_EAGER", 320 * 9)
    for cuts in (1, 2):
        for mine, theirs in zip(gradients(cuts), expected, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert len(used) == 3


@pytest.mark.parametrize(
    ("targets", "most", "rows"), [(32768, 10672, 8192), (32768, 1 << 20, 32768), (5, 3, 3), (5, 100, 5), (0, 9, 1)]
)
def test_chunks_are_even_and_no_larger_than_allowed(targets: int, most: int, rows: int) -> None:
    assert head._rows(targets, most) == rows


class Traffic(TorchDispatchMode):
    """Counts bytes on fake tensors: what operations other than matrix products move, and the most that is held."""

    PRODUCTS = (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.addmm_)
    SPARSE = (torch.ops.aten.gather, torch.ops.aten.scatter_add_)  # one number a row
    FREE = (torch.ops.aten.empty, torch.ops.aten.empty_like, torch.ops.aten.detach)

    def __init__(self) -> None:
        super().__init__()
        self.moved = self.peak = self.operations = 0
        self._held: dict[int, tuple[weakref.ref[torch.UntypedStorage], int]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        kwargs = kwargs or {}
        packet = func.overloadpacket
        # Of addmm with an fp32 sum there is none for CPUs.
        out = kwargs["out"] if func is torch.ops.aten.addmm.dtype_out else func(*args, **kwargs)
        tensors = [each for each in tree_leaves(out) if isinstance(each, Tensor)]
        for each in tensors:
            self._hold(each.untyped_storage())
        if func.is_view or packet in self.FREE or func.namespace != "aten":
            return out
        self.operations += 1
        if packet in self.SPARSE:
            self.move(args[2], args[2])
        elif packet not in self.PRODUCTS:
            read = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
            self.move(*read, *tensors)
        return out

    def move(self, *tensors: Tensor) -> None:
        """Note that these are read or written."""
        self.moved += sum(each.numel() * each.element_size() for each in tensors)

    def _hold(self, storage: torch.UntypedStorage) -> None:
        self._held[storage._cdata] = (weakref.ref(storage), storage.nbytes())
        self._held = {key: held for key, held in self._held.items() if held[0]() is not None}
        self.peak = max(self.peak, sum(size for _, size in self._held.values()))


def traffic(counting: Traffic, step: Callable[[Tensor, Tensor, nn.Linear], Tensor]) -> None:
    """Count a head's step of 32 samples of 1024 tokens, GPT-2 small's width and vocabulary, in bf16."""
    with FakeTensorMode(), torch.autocast("cpu", torch.bfloat16):
        hidden = torch.empty((32 * 1024, 768), requires_grad=True)
        labels, output = torch.empty(32 * 1024, dtype=torch.long), nn.Linear(768, 50_257, bias=False)
        with counting:
            step(hidden, labels, output).backward()  # type: ignore[no-untyped-call]


def test_a_step_moves_few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Budgets; the compiled kernel counts as one operation that reads logits twice and writes them once."""

    def kernel(device: torch.device, dtype: torch.dtype, vocabulary: int, has_bias: bool, bend: Bend) -> object:
        def to_gradient(logits: Tensor, labels: Tensor, bias: Tensor | None) -> Tensor:
            counting.move(logits, logits, logits)
            counting.operations += 1
            return torch.empty(len(logits))

        return to_gradient, True

    def in_chunks(hidden: Tensor, labels: Tensor, output: nn.Linear) -> Tensor:
        rows = loss.LOGITS_AT_ONCE // 50_257
        return loss._InChunks.apply(lambda part: output(part).float(), rows, hidden, labels, output.weight)  # type: ignore[no-any-return, no-untyped-call]

    counting = Traffic()
    traffic(counting, in_chunks)
    assert counting.moved > 80e9  # what the loop of a CPU would move on an accelerator
    monkeypatch.setattr(head, "_kernel", kernel)
    monkeypatch.setattr(head, "_adds_in_fp32", lambda device: True)
    for size, gigabytes, gibibytes, operations in ((head.MOST, 11.3, 0.9, 52), (head.MOST // 4, 11.3, 0.55, 160)):
        monkeypatch.setattr(head, "logit_bytes", lambda device, deterministic, size=size: size)
        counting = Traffic()
        traffic(counting, lambda *given: fused_loss(*given, Bend()))
        assert counting.moved < gigabytes * 1e9
        assert counting.peak < gibibytes * 2**30
        assert counting.operations <= operations


def test_without_a_compiler_the_same_runs_after_a_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(kernel: object) -> object:
        raise RuntimeError("no C compiler\nhere")

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.warns(Notice, match=r"without torch.compile, .* \(no C compiler\)"):
        assert head._compiled(head._to_gradient, torch.device("cpu"), torch.bfloat16, 320, False) is None  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("bend", BENDS[::2])
def test_the_compiled_kernel_gives_what_the_plain_one_gives(bend: Bend) -> None:
    """For any number of rows without compiling again."""
    plain: head.Kernel = functools.partial(head._to_gradient, vocabulary=V, bend=bend)
    compiled = head._compiled(plain, torch.device("cpu"), torch.bfloat16, 320, True)
    assert compiled is not None
    bias = torch.randn(320)
    with torch.compiler.set_stance("fail_on_recompile"):
        for rows in (2, 17, 64):
            logits, labels = torch.randn((rows, 320)).bfloat16(), torch.randint(V, (rows,))
            mine, theirs = logits.clone(), logits.clone()
            torch.testing.assert_close(compiled(mine, labels, bias), plain(theirs, labels, bias))
            torch.testing.assert_close(mine, theirs)
            assert not mine[:, V:].any()


@pytest.mark.parametrize(
    ("free", "kept", "whole", "deterministic", "logits"),
    [(40 << 30, 0, 80 << 30, False, 1 << 29), (3 << 30, 0, 80 << 30, False, 1 << 27),
     (3 << 30, 1 << 30, 80 << 30, False, 1 << 28), (3 << 30, 0, 80 << 30, True, 1 << 29),
     (1 << 20, 0, 8 << 30, False, 1 << 25)],
)  # fmt: skip
def test_logits_take_a_share_of_the_memory(
    free: int, kept: int, whole: int, deterministic: bool, logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, whole))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: kept + 5)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert head.logit_bytes.__wrapped__(torch.device("cuda"), deterministic) == logits


@pytest.mark.parametrize(
    ("kind", "device", "rows", "expected"),
    [(nn.Linear, "meta", 1 << 12, True), (nn.Linear, "cpu", 1 << 12, False), (nn.Linear, "meta", 2, False),
     (nn.Bilinear, "meta", 1 << 12, False)],
)  # fmt: skip
def test_it_serves_large_plain_heads_on_accelerators(
    kind: type[nn.Module], device: str, rows: int, expected: bool
) -> None:
    output = kind(*[2] * (3 if kind is nn.Bilinear else 2), device="meta")
    assert head.is_faster(output, torch.empty((rows, 2), device=device), 50_257) is expected


@pytest.mark.parametrize("has_bias", [False, True])
@pytest.mark.parametrize("bend", BENDS)
def test_padding_counts_for_nothing(has_bias: bool, bend: Bend) -> None:
    hidden, labels, output = made(torch.float32, has_bias)
    kept = torch.arange(T) % 3 > 0
    padded = torch.where(kept, labels, -100)
    fused_loss(hidden, padded, output, bend, CHUNKS).backward()
    found = [hidden.grad, *(parameter.grad for parameter in output.parameters())]
    expected = exact(hidden[kept], labels[kept], output, bend)[1:]
    assert found[0] is not None
    assert float(found[0][~kept].abs().max()) == 0
    assert distance(found[0][kept], expected[0]) < 2e-6
    assert all(distance(each, wanted) < 2e-6 for each, wanted in zip(found[1:], expected[1:], strict=True))
