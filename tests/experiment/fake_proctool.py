"""Acts as `proctool warmup|pretrain|eval`: writes the events and the artifact that they would, and logs each call.

Files beside the run folders steer it: `fail-NAME` makes the stage whose folder begins with NAME fail; `hang-NAME` makes
it wait, after its first steps, for the signal that ends it; `worse-NAME` raises its loss. What it writes
is a copy of $FAKE_ARTIFACT.
"""

import json
import os
import shutil
import signal
import sys

arguments = sys.argv[1:]
folder = arguments[arguments.index("--run-dir") + 1]
steps = int(arguments[arguments.index("--steps") + 1])
root, _, name = folder.rpartition("/")


def steered(kind):
    return any(name.startswith(each.removeprefix(kind)) for each in os.listdir(root) if each.startswith(kind))


def stop(*_):
    print("proctool: stopped at a checkpoint", file=sys.stderr)
    with open(f"{root}/calls", "a") as calls:
        calls.write(f"stopped {name}\n")
    sys.exit(130)


# Held back until it is waited for: a signal that comes early is taken then, not lost.
signal.signal(signal.SIGTERM, stop)
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

with open(f"{root}/calls", "a") as calls:
    calls.write(f"{name}\n")
if "--init" in arguments:
    donor = arguments[arguments.index("--init") + 1]
    open(donor).close()
if steered("fail-"):
    print("Traceback (most recent call last): not this line", file=sys.stderr)
    print("proctool: the loss is nan at step 7; lower --lr", file=sys.stderr)
    sys.exit(1)

with open(f"{folder}/metrics.jsonl", "a") as metrics:

    def write(**event):
        metrics.write(json.dumps(event) + "\n")
        metrics.flush()

    write(event="start", command=arguments[0], steps=steps, tokens_per_step=100, parameters=1000)
    worse = 0.5 if steered("worse-") else 0.0
    warm = 0.7 if "--init" in arguments else 1.0
    for step in range(0, steps + 1, 10):
        loss = 2 + 3 / (1 + step / warm) + worse
        write(event="eval", step=step, tokens=100 * step, split="validation", loss=loss, accuracy=step / steps)
        write(event="train", step=step, tokens=100 * step, loss=loss, tokens_per_second=1e4, seconds=step / 100)
        if step == 10 and steered("hang-"):
            with open(f"{root}/calls", "a") as calls:
                calls.write(f"hanging {name}\n")
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
            signal.pause()
    end = {"event": "end", "step": steps, "tokens": 100 * steps, "loss": loss, "seconds": steps / 100}
    if "-o" in arguments:
        artifact = arguments[arguments.index("-o") + 1]
        shutil.copyfile(os.environ["FAKE_ARTIFACT"], artifact)
        end |= {"artifact": artifact, "content": os.environ["FAKE_CONTENT"]}
    write(**end)
