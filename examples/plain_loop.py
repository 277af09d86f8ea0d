"""Warm a model up in a training loop of your own: python examples/plain_loop.py

The loop is yours: any model, optimiser, precision, launcher. proctool gives the data, as a PyTorch dataset.
"""

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import GPT2Config, GPT2LMHeadModel

import proctool
from proctool.torch import TaskStream, collate

STEPS = 100

task = proctool.load_task("set:inputs=8,symbols=20")
loader = DataLoader(TaskStream(task), batch_size=64, collate_fn=collate)

torch.manual_seed(0)
config = GPT2Config(
    n_layer=2, n_head=4, n_embd=64, vocab_size=task.vocab_size, n_positions=task.length,
    bos_token_id=None, eos_token_id=None,
)  # fmt: skip
model = GPT2LMHeadModel(config)
optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)

for step, batch in zip(range(1, STEPS + 1), loader, strict=False):
    logits = model(batch["input_ids"]).logits  # (B, L, V)
    # A label stands at the position of its own token; the prediction is made one position before.
    loss = functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()
    if step % 50 == 0:
        print(f"step {step}: loss {loss.item():.3f}")

model.save_pretrained("warm")
print("wrote warm; carry it over with: proctool pretrain --init warm --model 2x4x64")
