"""Copy a trained teacher or student of the `shapes` default into the package, as float16.

python scripts/ship_shapes_weights.py {teacher,student} runs/.../teacher.safetensors
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save

from lcm_distill import assets
from lcm_distill.models.checkpoint import METADATA, read_description, read_tensors
from lcm_distill.pipeline.atomic_writes import commit_bytes

TARGETS = {"teacher": assets.TEACHER, "student": assets.STUDENT}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("role", choices=TARGETS)
    parser.add_argument("checkpoint", type=Path)
    arguments = parser.parse_args()
    description = read_description(arguments.checkpoint)
    if description.get("role") != arguments.role:
        parser.error(f"{arguments.checkpoint} is not a {arguments.role} that lcm published")
    tensors = {name: tensor.half() for name, tensor in read_tensors(arguments.checkpoint).items()}
    content = save(tensors, {METADATA: json.dumps(description)})
    target = TARGETS[arguments.role]
    commit_bytes(target, content)
    print(f"{target}: {len(content):,} bytes")
