"""Peak memory of importing, saving and opening a checkpoint, over its size, above the bare process. Linux only.

python -m benchmarks.import_memory      makes a random checkpoint of 951 MiB in a temporary folder, in shards
"""

import subprocess
import sys
import tempfile
from pathlib import Path

MAKE = """
import sys, torch
from transformers import SwitchTransformersConfig, SwitchTransformersForConditionalGeneration
config = SwitchTransformersConfig(
    d_model=512, d_ff=2048, num_heads=8, num_layers=6, num_decoder_layers=6, num_experts=16, decoder_start_token_id=0
)
SwitchTransformersForConditionalGeneration(config).save_pretrained(sys.argv[1], max_shard_size="300MB")
from tokenizers import Tokenizer, models
Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")).save(sys.argv[1] + "/tokenizer.json")
"""
MEASURE = """
import sys
from switch_model import SwitchForConditionalGeneration, load_checkpoint
from train.weights.switch_transformers import import_checkpoint
def memory(kind):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(kind))
source, target, what = sys.argv[1:]
bare = memory("VmRSS")
if what == "import":
    SwitchForConditionalGeneration.from_switch_transformers(source)
elif what == "import and save":
    import_checkpoint(source, target)
else:
    load_checkpoint(target, "cpu")
print(memory("VmHWM") - bare)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, target = str(Path(scratch) / "theirs"), str(Path(scratch) / "ours")
        subprocess.run([sys.executable, "-c", MAKE, source], check=True, capture_output=True)
        size = sum(path.stat().st_size for path in Path(source).glob("*.safetensors"))
        print(f"{size / 2**20:.0f} MiB")
        for what in ("import", "import and save", "open what was saved"):
            done = subprocess.run(
                [sys.executable, "-c", MEASURE, source, target, what], check=True, capture_output=True, text=True
            )
            print(f"{what}: {int(done.stdout.split()[-1]) / size:.3f} of its size")


if __name__ == "__main__":
    main()
