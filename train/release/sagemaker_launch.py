r"""Starts a training job of SageMaker that runs train/release/sagemaker_entry.py; needs SageMaker's SDK, version 3.

python -m train.release.sagemaker_launch --data s3://BUCKET/news --checkpoints s3://BUCKET/news-run --role ROLE \
    --image IMAGE --instance_type ml.g5.xlarge --spot epochs=3 num_experts=8
"""

import argparse
import sys

from train.launch import prepare_streams
from train.requirements import ROOT

HOUR = 3600
# What the job does not need of the checkout.
LEFT_HERE = [".git", ".venv*", "__pycache__", "assets", "benchmarks", "build", "dist", "docs", "runs", "tests", ".env"]


def main(arguments: list[str] | None = None) -> None:
    options = _parser().parse_args(arguments)
    if wrong := [flag for flag in options.flags if "=" not in flag]:
        sys.exit(f"error: {wrong[0]}: flags of the run are name=value, such as epochs=3.")
    flags = dict(flag.partition("=")[::2] for flag in options.flags)
    try:
        from sagemaker.core.training import configs
        from sagemaker.train import ModelTrainer
    except ImportError as error:
        sys.exit(f"error: {error}. Install the SDK: pip install sagemaker-train")
    stop = {"max_runtime_in_seconds": options.hours * HOUR}
    if options.spot:
        stop["max_wait_time_in_seconds"] = 2 * options.hours * HOUR
    trainer = ModelTrainer(
        role=options.role,
        training_image=options.image,
        base_job_name="switch-explorer",
        source_code=configs.SourceCode(
            source_dir=str(ROOT),
            requirements="requirements.txt",
            command="python -m train.release.sagemaker_entry",
            ignore_patterns=LEFT_HERE,
        ),
        compute=configs.Compute(
            instance_type=options.instance_type, instance_count=1, enable_managed_spot_training=options.spot
        ),
        stopping_condition=configs.StoppingCondition(**stop),
        checkpoint_config=configs.CheckpointConfig(s3_uri=options.checkpoints),
        hyperparameters=flags,
    )
    channel = configs.InputData(channel_name="training", data_source=options.data)
    trainer.train(input_data_config=[channel], wait=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.release.sagemaker_launch", allow_abbrev=False)
    parser.add_argument("flags", nargs="*", help="flags of python -m train, as name=value")
    parser.add_argument("--data", required=True, help="S3 folder with a table, or <dataset>/<split>.parquet")
    parser.add_argument("--checkpoints", required=True, help="S3 folder of the run; a job with the same one resumes it")
    parser.add_argument("--role", required=True, help="IAM role of the job")
    parser.add_argument("--image", required=True, help="PyTorch training image, with Python 3.11 or newer")
    parser.add_argument("--instance_type", default="ml.g5.xlarge", help="default: %(default)s")
    parser.add_argument("--hours", type=int, default=12, help="at most (default: %(default)s)")
    parser.add_argument("--spot", action="store_true", help="spare machines, which may be taken away: the job resumes")
    return parser


if __name__ == "__main__":
    prepare_streams()
    main()
