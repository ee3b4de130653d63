"""The training tools whose run folders are recognised, one row each.

To add a tool, add a row here and a folder to the table in `tests/checkpoints/test_run_folders.py`.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tool:
    """The layout of a training tool's run folders.

    Attributes:
        name: Its name.
        files: Regular expression for weights, relative to the run's folder and without suffix;
            `pytorch_model` counts as `model`. Its groups identify the snapshot: `best`, `last`,
            `final`, `average`; `epoch`, `step`, `checkpoint` (numbers), `date`; `version` (of
            several runs in one folder, the newest counts); `state` for a training state, which is
            not opened.
        takes: The snapshots that may represent the run, in order of preference.
        folders: Regular expression for the subfolders with weights.
        suffixes: Suffixes of the weights; any if empty.
        marks: Files, as patterns, one of which must exist; none if the names of the weights
            suffice.
        hyperparameters: Files with hyperparameters, beside the weights or in a folder above them.
        logged: Files with logged metrics, in the same places.
        counts_from: First epoch in the names of files, if the log may start at another.
    """

    name: str
    files: str
    takes: tuple[str, ...]
    folders: str = ""
    suffixes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()
    hyperparameters: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    counts_from: int | None = None


TOOLS = (
    Tool(
        "Hugging Face Trainer",
        r"(?P<final>(adapter_)?model)"
        r"|checkpoint-(?P<step>\d+)/(global_step\d+/)?(adapter_)?model",
        takes=("final", "best", "last"),
        folders=r"checkpoint-\d+(/global_step\d+)?",
        suffixes=(".safetensors", ".bin"),
        hyperparameters=("training_args.bin", "config.json"),
        logged=("trainer_state.json", "all_results.json"),
    ),
    Tool(
        "Accelerate",
        r"(?P<final>model)|epoch_(?P<epoch>\d+)/model|step_(?P<step>\d+)/model"
        r"|(checkpoints/)?checkpoint_(?P<checkpoint>\d+)/model",
        takes=("final", "last"),
        folders=r"(epoch|step|checkpoint)_\d+|checkpoints(/checkpoint_\d+)?",
        suffixes=(".safetensors", ".bin"),
        logged=("all_results.json", "eval_results.json"),
    ),
    Tool(
        "DeepSpeed",
        r"(?P<final>model)|global_step(?P<step>\d+)/model",
        takes=("final", "last"),
        folders=r"global_step\d+",
    ),
    Tool(
        "Ultralytics",
        r"weights/((?P<best>best)|(?P<last>last)|epoch(?P<epoch>\d+))",
        takes=("best", "last"),
        folders="weights",
        suffixes=(".pt",),
        hyperparameters=("args.yaml", "opt.yaml", "hyp.yaml"),
        logged=("results.csv",),
        counts_from=0,
    ),
    Tool(
        "timm",
        r"(?P<best>model_best)|(?P<last>last)|checkpoint-(?P<epoch>\d+)"
        r"|milestone-(?P<checkpoint>\d+)|(?P<state>recovery-\d+-\d+|recovery_tmp|tmp)",
        takes=("best", "last"),
        suffixes=(".pth.tar",),
        hyperparameters=("args.yaml",),
        logged=("summary.csv",),
    ),
    Tool(
        "nnU-Net",
        r"(?P<best>checkpoint_best|model_best)|(?P<last>checkpoint_latest|model_latest)"
        r"|(?P<final>checkpoint_final|model_final_checkpoint)",
        takes=("final", "best", "last"),  # its predictor opens checkpoint_final
        suffixes=(".pth",),
    ),
    Tool(
        "NeMo",
        r"(checkpoints/)?[^/]+--[^/]*?epoch=(?P<epoch>\d+)[^/]*?(?P<last>-last)?",
        takes=("best", "last"),
        folders="checkpoints",
        suffixes=(".ckpt",),
        hyperparameters=("hparams.yaml",),
        logged=("metrics.csv",),
    ),
    Tool(
        "Lightning",
        r"(lightning_logs/version_(?P<version>\d+)/)?(checkpoints/)?"
        r"((?P<last>last)(-v\d+)?|(?P<best>best)(-v\d+)?"
        r"|(?=[^/]*(epoch|step)=)([^/]*?epoch=(?P<epoch>\d+))?([^/]*?step=(?P<step>\d+))?[^/]*)",
        takes=("best", "last"),
        folders=r"lightning_logs(/version_\d+(/checkpoints)?)?|checkpoints",
        suffixes=(".ckpt",),
        hyperparameters=("hparams.yaml",),
        logged=("metrics.csv",),
    ),
    Tool(
        "SpeechBrain",
        r"(save/)?CKPT\+(?P<date>[^/]+)/model",
        takes=("best", "last"),
        folders=r"save|(save/)?CKPT\+[^/]+",
        suffixes=(".ckpt",),
        hyperparameters=("hyperparams.yaml",),
        logged=("CKPT.yaml",),
    ),
    Tool(
        "OpenCLIP",
        r"(checkpoints/)?(epoch_(?P<epoch>\d+)|(?P<last>epoch_latest))",
        takes=("last",),
        folders="checkpoints",
        suffixes=(".pt",),
        marks=("params.txt", "checkpoints/epoch_*.pt", "epoch_latest.pt"),
        hyperparameters=("params.txt",),
        logged=("results.jsonl",),
    ),
    Tool(
        "ESPnet",
        r"(?P<average>valid\.[^/]*\.ave(_\d+best)?)|(?P<best>valid\.[^/]*\.best)"
        r"|(?P<state>train\.[^/]*(\.best|\.ave(_\d+best)?)|checkpoint)"
        r"|(?P<epoch>\d+)epoch|(?P<last>latest)",
        takes=("average", "best", "last"),  # its inference opens valid.acc.ave.pth
        suffixes=(".pth",),
        hyperparameters=("config.yaml",),
    ),
    Tool(
        "icefall",
        r"epoch-(?P<epoch>\d+)|checkpoint-(?P<step>\d+)|(?P<best>best-valid-loss)"
        r"|(?P<state>best-train-loss)|(?P<final>pretrained)|(?P<average>epoch-\d+-avg-\d+)",
        takes=("final", "average", "last"),
        suffixes=(".pt",),
    ),
    Tool(
        "fairseq",
        r"(checkpoints/)?((?P<best>checkpoint_best)|(?P<last>checkpoint_last)"
        r"|checkpoint(?P<epoch>\d+)|checkpoint_\d+_(?P<step>\d+)|checkpoint\.best_[^/]+)",
        takes=("best", "last"),
        folders="checkpoints",
        suffixes=(".pt",),
    ),
    Tool("OpenNMT", r"[^/]*_step_(?P<step>\d+)", takes=("last",), suffixes=(".pt",)),
    Tool(
        "Composer",
        r"(checkpoints/)?(ep(?P<epoch>\d+)-ba(?P<step>\d+)|(?P<last>latest))(-rank0)?",
        takes=("last",),
        folders="checkpoints",
        suffixes=(".pt",),
    ),
    Tool(
        "Weights & Biases",
        r"files/((?P<best>[^/]*best[^/]*)|(?P<last>[^/]*last[^/]*)|(?P<final>[^/]*final[^/]*)"
        r"|[^/]+)",
        takes=("best", "final", "last"),
        folders="files",
        marks=("files/wandb-*.json", "files/config.yaml"),
        hyperparameters=("config.yaml", "files/config.yaml"),
        logged=("wandb-summary.json", "files/wandb-summary.json"),
    ),
)
# Files of no particular tool, in the folder of a run.
SHARED = Tool(
    "",
    r"(.*/)?((?P<best>([^/]*[._-])?best([._-][^/]*)?)|(?P<final>([^/]*[._-])?final([._-][^/]*)?)"
    r"|(?P<last>([^/]*[._-])?(last|latest)([._-][^/]*)?)"
    r"|([^/]*[^a-z])?(epoch|ep|e)[._=-]?(?P<epoch>\d+)|([^/]*[^a-z])?(step|iter)[._=-]?(?P<step>\d+)"
    r"|checkpoint[._-](?P<checkpoint>\d+)(/[^/]+)?)",
    takes=("best", "final", "last"),
    hyperparameters=(".hydra/config.yaml", "wandb/latest-run/files/config.yaml"),
    logged=("wandb/latest-run/files/wandb-summary.json",),
)
HYPERPARAMETERS = tuple(
    dict.fromkeys(file for tool in (*TOOLS, SHARED) for file in tool.hyperparameters)
)
LOGGED = tuple(dict.fromkeys(file for tool in (*TOOLS, SHARED) for file in tool.logged))
