"""Plan an evolution from the command line: search method, flags of the candidates, and folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.evolve.genetic import Genetic, Population
from utils.base.errors import ConfigError
from utils.base.inputs import expand_user
from utils.base.log import LOG
from utils.base.options import changed, flag_of, parse_options, to_flags
from utils.base.paths import ROOT, claim_folder, command_for, relative_to_cwd, runs_folder
from utils.base.yaml_io import plain, read_yaml, write_yaml
from utils.tasks.task import get_task
from utils.train.hyp import Hyp
from utils.train.run_dir import quoted
from utils.train.train_options import TrainOptions

RULES = 1  # raise it when a change of the search changes the candidates
_SETTINGS = "evolution.yaml"
# Options of the evolution itself, or that it sets for each candidate.
_NOT_FOR_CANDIDATES = (
    *("evolve", "evolve_method", "evolve_members", "evolve_budget", "evolve_population", "resume_evolve"),
    *("jobs", "ray", "hyp", "project", "name", "exist_ok", "resume", "noplots", "noval", "nosave"),
    *("save_period", "local_rank", "bucket"),
)
_NOT_DECIDING = ("device", "workers", "cache", "save_steps", "loggers")  # do not change the results


@dataclass(frozen=True)
class SearchPlan:
    """An evolution that can be started or resumed."""

    home: Path
    method: Genetic | Population
    flags: tuple[str, ...]  # of train.py, for every candidate


def make_plan(options: TrainOptions) -> SearchPlan:
    """Check the options of train.py, and make the folder, or find the one to resume in.

    Raises:
        ConfigError: flags that exclude each other, files that cannot be used, or a folder with an
            evolution of other settings.
    """
    _check(options)
    files = {name: Path(getattr(options, name)) for name in ("data", "cfg", "weights")}
    # Absolute, as workers of a cluster have another working directory.
    found = {
        name: path for name, path in files.items() if path.is_file() or (name == "data" and path.is_dir())
    }
    options = changed(options, **{name: str(path.resolve()) for name, path in found.items()})
    task, start, members = get_task(options.model_task), _read_start(options), _read_members(options)
    defaults = type(options)().as_dict()
    deciding = to_flags(
        options,
        [
            name
            for name in options.given
            if name not in (*_NOT_FOR_CANDIDATES, *_NOT_DECIDING)
            and (name == "weights" or getattr(options, name) != defaults[name])
        ],
    )
    settings: dict[str, Any] = {
        "rules": RULES,
        "method": options.evolve_method,
        "train": deciding,
        "hyp": start,
        "members": options.evolve_members,
        "population": members,
    }
    home = _find_home(options, plain(settings))
    method: Genetic | Population
    assert options.evolve is not None
    if options.evolve_method == "population":
        method = Population(start, members, options.evolve_members, options.evolve, options.seed, task)
    else:
        method = Genetic(start, options.seed, task)
    others = to_flags(options, [name for name in _NOT_DECIDING if name in options.given and name != "device"])
    return SearchPlan(home, method, (*deciding, *others, "--noval"))


def with_saved_options(options: TrainOptions) -> TrainOptions:
    """Return the options that the evolution in `--resume FOLDER` was started with; given ones replace them.

    Raises:
        ConfigError: there is no evolution in the folder.
    """
    if not isinstance(options.resume, str):
        return options
    home = expand_user(options.resume)
    if not (home / _SETTINGS).is_file():
        raise ConfigError(
            f"--resume {options.resume}: with --evolve, the folder of an evolution such as runs/evolve/exp"
        )
    command = read_yaml(home / _SETTINGS).get("command")
    if not isinstance(command, list):
        raise ConfigError(f"{home / _SETTINGS}: 'command:' is missing; give the whole command line instead")
    saved = parse_options(type(options), list(map(str, command)))
    replaced = {name: getattr(options, name) for name in options.given if name != "resume"}
    replaced |= {"project": str(home.parent), "name": home.name, "exist_ok": True}
    given = tuple(dict.fromkeys([*saved.given, *options.given, "project"]))
    return changed(saved, **replaced, given=given)


def resume_command(home: Path, generations: int, script: str) -> str:
    """Return the command that resumes an evolution."""
    return f"{command_for(script)} --evolve {generations} --resume {quoted(relative_to_cwd(home))}"


def _check(options: TrainOptions) -> None:
    from utils.train.distributed import is_launched

    if is_launched():
        raise ConfigError("--evolve: not under torchrun; --jobs or --ray train several candidates at a time")
    if options.evolve_method == "genetic":
        for name in ("evolve_population", "resume_evolve", "evolve_members"):
            if name in options.given:
                raise ConfigError(f"{flag_of(type(options), name)}: only with --evolve-method population")


def _read_start(options: TrainOptions) -> Hyp:
    task = get_task(options.model_task)
    return {key: value for key, value in task.read_hyp(options).items() if key in task.genes()}


def _read_members(options: TrainOptions) -> list[Hyp]:
    """Read the first individuals of a population search, at most one generation."""
    if options.evolve_method != "population":
        return []
    if options.resume_evolve:
        path = next(
            (p for p in (Path(options.resume_evolve), ROOT / options.resume_evolve) if p.is_file()), None
        )
        if path is None:
            raise ConfigError(
                f"--resume_evolve {options.resume_evolve}: no such file; expected an evolve_population.yaml"
            )
        content = _last_generation(read_yaml(path), path)
    elif not options.evolve_population:
        return []
    else:
        folder = Path(options.evolve_population)
        files = sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])
        if not files:
            raise ConfigError(f"--evolve_population {folder}: no yaml in it")
        content = {str(file): read_yaml(file) for file in files}
    task = get_task(options.model_task)
    members = [task.check_hyp(hyp, where, options) for where, hyp in content.items()]
    return members[: options.evolve_members]


def _last_generation(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the individuals of the last generation in an evolve_population.yaml, by their origin."""
    generations: dict[int, dict[int, Any]] = {}
    for key, hyp in content.items():
        generation, separator, number = str(key).removeprefix("gen").partition("number")
        if not (separator and generation.isdigit() and number.isdigit() and isinstance(hyp, dict)):
            raise ConfigError(f"--resume_evolve {path}: expected keys such as gen0number0, got {key!r}")
        generations.setdefault(int(generation), {})[int(number)] = hyp
    if not generations:
        raise ConfigError(f"--resume_evolve {path}: no individuals in it")
    latest = max(generations)
    members = generations[latest]
    return {f"{path}: gen{latest}number{number}": members[number] for number in sorted(members)}


def _find_home(options: TrainOptions, settings: dict[str, Any]) -> Path:
    """Return the folder of the evolution with these settings, or make a new one and write them into it."""
    project = options.project if "project" in options.given else runs_folder("evolve")
    name = Path(options.cfg).stem if options.name == "cfg" and options.cfg else options.name
    home = claim_folder(Path(project) / name, exist_ok=options.exist_ok or bool(options.resume))
    file = home / _SETTINGS
    if file.is_file():
        earlier = read_yaml(file)
        for key, value in settings.items():
            before = earlier.get(key)
            if before != value and not (key == "train" and sorted(before or ()) == sorted(value)):
                now = f"{key} {value}" if len(str(value)) < 200 else f"another {key}"
                raise ConfigError(
                    f"{relative_to_cwd(home)} has an evolution with other settings (now: {now}); "
                    "give the same settings, or another --name"
                )
        LOG.info(f"resuming in {relative_to_cwd(home)}")
        return home
    command = to_flags(
        options, [name for name in options.given if name not in ("resume", "exist_ok", "name", "project")]
    )
    write_yaml(file, settings | {"command": command})
    return home
