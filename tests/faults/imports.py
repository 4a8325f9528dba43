"""What commands import, for the process that they are forked from."""
# ruff: noqa: F401

import os

import diffusers.models.autoencoders.autoencoder_kl
import open_clip.tokenizer
import torch
import torch.utils.tensorboard

import lcm_distill.commands.work
import lcm_distill.report.progress
import lcm_distill.stages.compare
import lcm_distill.stages.distill
import lcm_distill.stages.evaluate
import lcm_distill.stages.export
import lcm_distill.stages.precompute
import lcm_distill.stages.pretrain
import lcm_distill.stages.pull
import lcm_distill.stages.schedule
import lcm_distill.stages.status
import lcm_distill.stages.verify
import lcm_distill.training.loop

os.fsync = os.fstat  # as in tests/conftest.py
torch.set_num_threads(1)  # a process with OpenMP threads cannot be forked
