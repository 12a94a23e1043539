"""What an evolution is to search, from the command line; and the folder that it goes on in."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.evolve.genetic import GENES, Genetic
from studies.evolve.population import Population
from utils.base.errors import ConfigError
from utils.base.log import LOG
from utils.base.paths import ROOT, find_file, increment_path, relative_to_cwd, runs_folder, typed
from utils.base.yaml_io import plain, read_yaml, write_yaml
from utils.train.hyp import Hyp, check_hyp
from utils.train.run_dir import quoted
from utils.train.train_options import check_options, parse_options, to_flags

RULES = 1  # raise it when the same settings would give other candidates
_SETTINGS = "evolution.yaml"
# Options that are the evolution's own, or that each candidate is given by it.
_OWN = (
    *("evolve", "evolve_method", "evolve_members", "evolve_budget", "evolve_population", "resume_evolve"),
    *("jobs", "ray", "hyp", "project", "name", "exist_ok", "resume", "noplots", "noval", "nosave"),
    *("save_period", "local_rank", "given", "bucket"),
)
_WHERE = ("device", "workers", "cache", "save_steps", "loggers")  # change nothing but the speed


@dataclass(frozen=True)
class SearchPlan:
    """An evolution that can begin, or go on."""

    home: Path
    method: Genetic | Population
    flags: tuple[str, ...]  # of train.py, for every candidate


def make_plan(opt: Namespace) -> SearchPlan:
    """Check everything, and make the folder or find the one to go on in.

    Raises:
        ConfigError: flags that exclude each other, files that cannot be used, or a folder of
            another evolution.
    """
    _check(opt)
    for name in ("data", "cfg", "weights"):
        if Path(getattr(opt, name)).is_file():  # workers of a cluster are in another folder
            setattr(opt, name, str(Path(getattr(opt, name)).resolve()))
    start, members = _read_start(opt), _read_members(opt)
    usual = vars(parse_options([]))
    decides = to_flags(
        opt,
        [
            name
            for name in opt.given
            if name not in (*_OWN, *_WHERE) and (name == "weights" or getattr(opt, name) != usual[name])
        ],
    )
    settings: dict[str, Any] = {
        "rules": RULES,
        "method": opt.evolve_method,
        "train": decides,
        "hyp": start,
        "members": opt.evolve_members,
        "population": members,
    }
    home = _find_home(opt, plain(settings))
    if opt.evolve_method == "population":
        method: Genetic | Population = Population(start, members, opt.evolve_members, opt.evolve, opt.seed)
    else:
        method = Genetic(start, opt.seed)
    where = to_flags(opt, [name for name in _WHERE if name in opt.given and name != "device"])
    return SearchPlan(home, method, (*decides, *where, "--noval"))


def with_saved_options(opt: Namespace) -> Namespace:
    """With `--resume FOLDER`, the options that the evolution there was begun with; new ones replace them.

    Raises:
        ConfigError: there is no evolution in the folder.
    """
    if not isinstance(opt.resume, str):
        return opt
    home = Path(opt.resume).expanduser()
    if not (home / _SETTINGS).is_file():
        raise ConfigError(
            f"--resume {opt.resume}: with --evolve, the folder of an evolution such as runs/evolve/exp"
        )
    command = read_yaml(home / _SETTINGS).get("command")
    if not isinstance(command, list):
        raise ConfigError(f"{home / _SETTINGS}: 'command:' is missing; give the whole command line instead")
    merged = parse_options(list(map(str, command)))
    for name in opt.given:
        if name != "resume":
            setattr(merged, name, getattr(opt, name))
    merged.given = [*dict.fromkeys([*merged.given, *opt.given, "project"])]
    merged.project, merged.name, merged.exist_ok = str(home.parent), home.name, True
    return merged


def how_to_go_on(home: Path, generations: int) -> str:
    """The command that goes on."""
    return f"{typed('train.py')} --evolve {generations} --resume {quoted(relative_to_cwd(home))}"


def _check(opt: Namespace) -> None:
    from utils.train.distributed import is_launched

    check_options(opt)
    if is_launched():
        raise ConfigError(
            "--evolve: not under torchrun; start it alone, --jobs or --ray train several at a time"
        )
    if opt.evolve_method == "genetic":
        for name in ("evolve_population", "resume_evolve", "evolve_members"):
            if name in opt.given:
                flag = name.replace("_", "-") if name == "evolve_members" else name
                raise ConfigError(f"--{flag}: only with --evolve-method population")


def _read_start(opt: Namespace) -> Hyp:
    path = find_file(opt.hyp, ("data", "models"), (".yaml", ".yml"), "--hyp")
    hyp = check_hyp(read_yaml(path), path)
    return {key: value for key, value in hyp.items() if key in GENES}


def _read_members(opt: Namespace) -> list[Hyp]:
    """The first individuals of a population search, at most as many as fit in a generation."""
    if opt.evolve_method != "population":
        return []
    if opt.resume_evolve:
        path = next((p for p in (Path(opt.resume_evolve), ROOT / opt.resume_evolve) if p.is_file()), None)
        if path is None:
            raise ConfigError(
                f"--resume_evolve {opt.resume_evolve}: no such file; give an evolve_population.yaml"
            )
        content = _last_generation(read_yaml(path), path)
    else:
        folder = Path(opt.evolve_population)
        files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
        if not files:
            raise ConfigError(f"--evolve_population {folder}: no yaml in it")
        content = {str(file): read_yaml(file) for file in files}
    members = [check_hyp(hyp, where) for where, hyp in content.items()]
    return members[: opt.evolve_members]


def _last_generation(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """The individuals of the last generation in an evolve_population.yaml."""
    found: dict[int, dict[int, Any]] = {}
    for key, hyp in content.items():
        generation, middle, number = str(key).removeprefix("gen").partition("number")
        if not (middle and generation.isdigit() and number.isdigit() and isinstance(hyp, dict)):
            raise ConfigError(f"--resume_evolve {path}: {key!r} is no individual such as gen0number0")
        found.setdefault(int(generation), {})[int(number)] = hyp
    if not found:
        raise ConfigError(f"--resume_evolve {path}: it has no individuals")
    last = found[max(found)]
    return {f"{path}: gen{max(found)}number{number}": last[number] for number in sorted(last)}


def _find_home(opt: Namespace, settings: dict[str, Any]) -> Path:
    """A free folder with the settings in it, or that of the same evolution."""
    if "project" not in opt.given:
        opt.project = runs_folder("evolve")
    name = Path(opt.cfg).stem if opt.name == "cfg" and opt.cfg else opt.name
    home = increment_path(Path(opt.project) / name, exist_ok=opt.exist_ok or bool(opt.resume))
    file = home / _SETTINGS
    if file.is_file():
        earlier = read_yaml(file)
        for key, value in settings.items():
            if earlier.get(key) != value:
                what = f"{key} {value}" if len(str(value)) < 200 else f"another {key}"
                raise ConfigError(
                    f"{relative_to_cwd(home)} has an evolution with other settings (now: {what}); "
                    "give those of before, or another --name"
                )
        LOG.info(f"going on in {relative_to_cwd(home)}")
        return home
    command = to_flags(
        opt, [name for name in opt.given if name not in ("resume", "exist_ok", "name", "project")]
    )
    write_yaml(file, settings | {"command": command})
    return home
