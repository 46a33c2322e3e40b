"""Every command of the project; `nox -l` lists them, `nox -s NAME` runs one."""

import os
import pathlib
import sys

import nox
from nox.command import CommandFailed

# Before anything is installed, in words of the oldest Python that nox runs on.
if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit(
        f"seqref needs Python 3.11 or newer; this is Python {sys.version.split()[0]} "
        f"({sys.executable}). Make .venv anew with a newer one."
    )

nox.options.sessions = ["tests", "site"]
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True

ROOT = pathlib.Path(__file__).parent
PROJECT = nox.project.load_toml("pyproject.toml")
DOCS = PROJECT["project"]["optional-dependencies"]["docs"]
GROUPS = PROJECT["dependency-groups"]

# Every version but torch's, for every Python (`nox -s lock` writes it), and torch's.
LOCK, TORCH = "constraints.txt", "constraints-torch.txt"
# Not in constraints.txt: on a GPU Triton comes with torch.
TRITON = "triton==3.9.0"

# nox looks along PATH, where pyenv puts but one version of its own.
PYENV = pathlib.Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
os.environ["PATH"] = os.pathsep.join(
    [os.environ["PATH"], *map(str, sorted(PYENV.glob("versions/3.*/bin")))]
)


def install(session: nox.Session, *wanted: str) -> None:
    """Install pinned versions: torch alone and first, so that the pin decides."""
    session.install("-c", LOCK, "-c", TORCH, "torch")
    session.install("-c", LOCK, "-c", TORCH, *wanted)


def install_docs(session: nox.Session, *wanted: str) -> None:
    """Install what builds the site; the package is read, not imported."""
    session.install("-c", LOCK, *DOCS, *wanted)
    session.env["PYTHONPATH"] = str(ROOT / "tools")
    session.env["NO_MKDOCS_2_WARNING"] = "1"


@nox.session
def lock(session: nox.Session) -> None:
    """Write constraints.txt from pyproject.toml (with `-- --upgrade`: the newest)."""
    session.install("-c", LOCK, *GROUPS["lock"])
    # torch is left out with all that it brings: gigabytes, and other ones for each
    # kind of machine.
    without = pathlib.Path(session.create_tmp()) / "overrides.txt"
    without.write_text("torch; python_version < '3'\n", encoding="utf-8")
    session.env["UV_CUSTOM_COMPILE_COMMAND"] = "nox -s lock"
    session.run(
        *("uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-annotate"),
        *("--universal", "--python-version", "3.11", "--no-python-downloads"),
        *("--extra", "test", "--extra", "docs"),
        *(word for name in GROUPS for word in ("--group", name)),
        *("--overrides", str(without), "--output-file", LOCK, *session.posargs),
    )


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests: the package, the pages and the tools (arguments go to pytest)."""
    install(session, "-e", ".[test]")
    suite(session)


@nox.session(python=["3.12", "3.13"])
def pythons(session: nox.Session) -> None:
    """Run all tests on other Pythons (pip may bring torch's build for CUDA there)."""
    install(session, "-e", ".[test]")
    suite(session)


@nox.session(name="torch-newest")
def torch_newest(session: nox.Session) -> None:
    """Run all tests with the newest torch that installs (the build for CUDA)."""
    session.install("-c", LOCK, "--upgrade", "torch")
    session.install("-c", LOCK, "-e", ".[test]")
    session.run("python", "-c", "import torch; print('torch', torch.__version__)")
    suite(session)


def suite(session: nox.Session) -> None:
    """Run the tests plainly, then those that runtime type checks can watch."""
    (ROOT / "build").mkdir(exist_ok=True)
    # Two workers share two cores: with two threads each they wait for one another.
    session.env["OMP_NUM_THREADS"] = "1"
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    session.run("pytest", "-n", "2", "--junitxml=build/tests.xml")
    session.run(
        "pytest",
        *("-n", "2"),
        "--jaxtyping-packages=seqref,beartype.beartype",
        # What a call gives is judged above: here each value of a parameter is met once.
        "--each-value",
        "-m=not compile and not errors and not draws and not slow and not gpu",
        "--junitxml=build/typed.xml",
        "tests/attention",
        "tests/decoding",
        "tests/interop",
        "tests/ops",
        "tests/recurrent",
        "tests/ssm",
        "tests/tasks",
        "tests/test_recurrence.py",
        "tests/training/test_checkpoint.py",
        "tests/training/test_loop.py",
        "tests/training/test_truncated.py",
    )


@nox.session
def new(session: nox.Session) -> None:
    """Lay out the files of a concept (`-- recurrent/name --layer Name`), to fill in."""
    session.env["PYTHONPATH"] = str(ROOT / "tools")
    session.run("python", "-m", "scaffold", *session.posargs)


@nox.session
def sabotage(session: nox.Session) -> None:
    """Plant each fault of tests/sabotages and say what notices it (most of an hour).

    Arguments are names of faults or of subjects: only these are planted. With --resume
    a session that was stopped goes on.
    """
    install(session, "-e", ".[test,docs]", *GROUPS["lint"])
    session.env["PYTHONPATH"] = str(ROOT / "tools")
    session.run("python", "-m", "sabotage", *session.posargs)


@nox.session
def site(session: nox.Session) -> None:
    """Build the site into site/, strictly (needs neither torch nor Node.js)."""
    install_docs(session)
    session.run("mkdocs", "build", "--strict", *session.posargs)
    session.log(f"Open {ROOT / 'site' / 'index.html'}, or run: nox -s serve")


@nox.session
def serve(session: nox.Session) -> None:
    """Serve the site on this machine and build at each change what it concerns."""
    install_docs(session)
    session.run("python", "-m", "sitekit.preview", *session.posargs)


@nox.session
def audit(session: nox.Session) -> None:
    """Compare every block of the built site with what ran (after tests and site)."""
    install_docs(session)
    session.run("python", "-m", "pageblocks.audit", "--site", "site", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style, formatting and the direction of imports."""
    session.install("-c", LOCK, *GROUPS["lint"])
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.env["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    session.run("lint-imports")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of src with pyright."""
    install(session, ".[train,bench]", *GROUPS["types"])
    python = session.bin_paths[0] if session.bin_paths else "."
    session.run("pyright", "--pythonpath", str(pathlib.Path(python) / "python"))


@nox.session
def browser(session: nox.Session) -> None:
    """Open every page of site/ in Chromium: requests, links, accessibility."""
    session.install("-c", LOCK, *GROUPS["browser"])
    # Who calls this wants the pages opened: no browser is a failure here, not a skip.
    session.env["SEQREF_REQUIRE_BROWSER"] = "1"
    # --confcutdir: the tests' own conftest imports torch, which is not here.
    # A browser that stalls ends its worker; what failed then runs once more, alone.
    command = [
        "pytest",
        "--confcutdir=tests/site",
        "--junitxml=build/browser.xml",
        "--timeout=300",
        "--timeout-method=thread",
        # Now and then Chromium stops to draw a page; it is opened anew.
        "--reruns=2",
        "--only-rerun=drew no frame",
        "tests/site",
        *session.posargs,
    ]
    try:
        session.run(*command, "-n=2")
    except CommandFailed:
        session.warn("Once more, alone: what failed.")
        session.run(*command, "--last-failed")


@nox.session
def figures(session: nox.Session) -> None:
    """Draw every table and figure again from the committed results."""
    install(session, "-e", ".[bench]")
    session.run("python", "-m", "experiments", "render", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """Measure again all that rests on a clock (half an hour), and say what held."""
    install(session, "-e", ".[bench]")
    folder = ROOT / "runs" / "bench"
    # On a busy machine a claim may fall: that is a result here, not a failure.
    session.run(
        *("python", "-m", "experiments", "run", "timed", "--full"),
        *("--out", str(folder), *session.posargs),
        success_codes=[0, 1],
    )
    for table in ("training", "forward", "index", "targets", "run"):
        path = folder / f"fused_recurrence_speed.{table}.md"
        print(f"\n{table}\n\n{path.read_text(encoding='utf-8')}")


@nox.session
def kernels(session: nox.Session) -> None:
    """Run Triton's kernels without a GPU, in its interpreter (Linux, a gigabyte)."""
    install(session, "-e", ".", "pytest")
    session.install(TRITON)
    session.env["TRITON_INTERPRET"] = "1"
    session.env["OMP_NUM_THREADS"] = "1"
    session.run(
        *("pytest", "-m=triton", "--confcutdir=tests", "--junitxml=build/kernels.xml"),
        *("tests/ops", *session.posargs),
    )


@nox.session(venv_params=["--system-site-packages"])
def gpu(session: nox.Session) -> None:
    """Run what needs a GPU, with the torch of this machine, and stamp the pages."""
    session.install(".[test]")
    session.run("pytest", "-m=gpu", "--require-gpu", "--stamp-gpu", *session.posargs)


@nox.session
def zensical(session: nox.Session) -> None:
    """Build the site with Zensical, Material's successor, into build/zensical/."""
    install_docs(session, *GROUPS["zensical"])
    session.env["SEQREF_SITE"] = "build/zensical"
    session.run("zensical", "build", "--strict", *session.posargs)
