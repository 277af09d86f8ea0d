"""Warm a model up in HF Trainer: python examples/hf_trainer.py"""

from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

import proctool
from proctool.hf import DiagnosticCallback
from proctool.torch import TaskDataset, collate

STEPS, BATCH = 100, 64

task = proctool.load_task("set:inputs=8,symbols=20")
set_seed(0)
config = GPT2Config(
    n_layer=2, n_head=4, n_embd=64, vocab_size=task.vocab_size, n_positions=task.length,
    bos_token_id=None, eos_token_id=None,
)  # fmt: skip
model = GPT2LMHeadModel(config)
trainer = Trainer(
    model=model,
    args=TrainingArguments(
        output_dir="trainer",
        max_steps=STEPS,
        per_device_train_batch_size=BATCH,
        learning_rate=3e-3,
        lr_scheduler_type="constant",
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    ),
    train_dataset=TaskDataset(task, length=STEPS * BATCH),
    data_collator=collate,
)
# Accuracy on samples that are not trained on, in the logs of Trainer.
trainer.add_callback(DiagnosticCallback(task, every=50, samples=256, log=trainer.log))
trainer.train()

model.save_pretrained("warm")
print("wrote warm; carry it over with: proctool pretrain --init warm --model 2x4x64")
