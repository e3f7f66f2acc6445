"""What a person sees of a sweep on a terminal, as text: a real run in tmux at 120 and at 80 columns, and the same run into a file.

    python benchmarks/terminal_frames.py

writes texts to `docs/frames` and a picture, `docs/assets/terminal.svg`. It takes some minutes. It fails where a line
is not ours: what Ray, absl, Alembic and torch say belongs into a log file.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FRAMES, PICTURE = ROOT / "docs" / "frames", ROOT / "docs" / "assets" / "terminal.svg"
WIDTHS, ROWS = (120, 80), 48
LOOK_EVERY_S, LONGEST_S = 0.2, 1800.0
SWEEP = "dpsweep run small.yaml --max-concurrent 2"
SPACE = """
sweep: {epsilons: [0.8, 8], delta: 1.0e-3, trials_per_epsilon: 4, sampler: random, accounting: composed}
references: {floor: true, ceiling: false, control: true, winner_seeds: 1, disclosure: {steps: 10}}
splits: {blur_3: {transform: gaussian_blur, sigma_px: 3}}
trial:
  data: {private: tiny/private, public: tiny/public, validation: tiny/validation, nominal_examples: 400}
  model: {backbone: small, freeze: early}
  stages:
    public: {steps: 60, batch_size: 16, learning_rate: 6.0e-3}
    public_view: {steps: 20, max_steps: 60, batch_size: 16}
    private: {steps: 20, expected_batch_size: 60}
search:
  method: {choice: [dpsgd, feature]}
  split: {choice: [blur_3], when: {method: feature}}
  clip_norm: {float: [0.1, 1.0], log: true}
  optimizer.learning_rate: {float: [1.0e-3, 8.0e-3], log: true}
"""
PEOPLE = (("private", "private", 400, "PRIVATE"), ("public", "public", 150, "PUBLIC"), ("validation", "private", 80, "PUBLIC"))
"""Name, domain, number and role of the synthetic people."""
MOMENTS = (
    ("Before the first trial", r"starting Ray|opening studies"),
    ("The first runs", r"^running .*\n.*(public training|step)"),
    ("In the middle", r"^(8|0\.8) +[1-9] of \d+ +\d\d\.\d(.*\n)+running .*\n(.*\n)*.*step"),
    ("Near the end", r"drawing the report|composing the price|-seed\d .*step \d+ of"),
)
"""Title → what the screen shows then, as a pattern over its lines."""
FOREIGN = re.compile(
    r"\b(WARNING|INFO|DEBUG|ERROR)\b|^\((pid|raylet|autoscaler|\w+ pid)|\babsl\b|alembic|\bray::|[A-Z]\w+Warning\b|^Traceback|"
    r"\d{4}[-/]\d\d[-/]\d\d[ T]\d\d:\d\d"
)
"""What only libraries write: levels, processes, time stamps, warnings."""
SVG_FORMAT = """<svg class="rich-terminal" viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img">
<title>A running sweep on a terminal</title>
<style>
.{unique_id}-matrix {{ font-family: DejaVu Sans Mono, Menlo, Consolas, monospace; font-size: {char_height}px; }}
.{unique_id}-title {{ font-family: DejaVu Sans, Verdana, sans-serif; font-size: 18px; font-weight: bold; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal"><rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/></clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">{matrix}</g>
</g>
</svg>
"""
"""rich's format without its fonts, which it would fetch."""


@dataclass(frozen=True, kw_only=True)
class Frame:
    """What a terminal shows at a moment. `text` has no colours, `coloured` has them as escape sequences."""

    title: str
    seconds: float
    text: str
    coloured: str


@dataclass(frozen=True, kw_only=True)
class Terminal:
    """A terminal in tmux. `socket` names its server, which is nobody else's."""

    socket: str

    def run(self, *line: str) -> str:
        """A command of tmux."""
        done = subprocess.run(["tmux", "-u", "-L", self.socket, "-f", os.devnull, *line], capture_output=True, text=True, check=True)
        return done.stdout

    def screen(self, *, whole: bool = False, coloured: bool = False) -> str:
        """What it shows, without empty lines at the end. `whole`: from the first line that it ever showed."""
        shown = self.run("capture-pane", "-p", *(["-S", "-"] if whole else []), *(["-e"] if coloured else []))
        return "\n".join(line.rstrip() for line in shown.splitlines()).strip("\n")

    def frame(self, title: str, seconds: float, *, whole: bool = False) -> Frame:
        """What it shows now."""
        return Frame(title=title, seconds=seconds, text=self.screen(whole=whole), coloured=self.screen(whole=whole, coloured=True))


@contextmanager
def terminal(command: str, *, width: int, rows: int = ROWS, folder: Path) -> Iterator[Terminal]:
    """A terminal of so many columns and rows in which a command runs; it stays open after the command, and ends with the block.

    Args:
        command: a line for `sh`. When it has ended, a file `ended` with its exit code stands in `folder`.
        width, rows: of the terminal.
        folder: the working directory.
    """
    made = Terminal(socket=f"frames-{os.getpid()}-{width}")
    line = f"cd {shlex.quote(str(folder))}; {command}; echo $? > ended; exec sleep 100000"
    made.run("new-session", "-d", "-x", str(width), "-y", str(rows), line)
    try:
        yield made
    finally:
        made.run("kill-server")


def frames(command: str, moments: Sequence[tuple[str, str]], *, width: int, folder: Path, longest_s: float = LONGEST_S) -> list[Frame]:
    """A frame of each moment, in the order in which they came, and one of all that stays at the end.

    Raises:
        SystemExit: the command failed or took too long, or a moment did not come.
    """
    begun, found = time.monotonic(), dict[str, Frame]()
    with terminal(command, width=width, folder=folder) as shown:
        while not (folder / "ended").is_file():
            passed = time.monotonic() - begun
            text = shown.screen()
            for title, pattern in moments:
                if title not in found and re.search(pattern, text, flags=re.MULTILINE):
                    found[title] = shown.frame(title, passed)
            if passed > longest_s:
                raise SystemExit(f"{command} takes more than {longest_s:.0f} s:\n{text}")
            time.sleep(LOOK_EVERY_S)
        last = shown.frame("What stays", time.monotonic() - begun, whole=True)
    code = (folder / "ended").read_text().strip()
    missing = [title for title, _ in moments if title not in found]
    if code != "0" or missing:
        raise SystemExit(f"{command} gave {code}; never seen: {', '.join(missing) or 'nothing'}\n{last.text}")
    return [*found.values(), last]


def foreign_lines(text: str) -> list[str]:
    """The lines that a library wrote."""
    return [line for line in text.splitlines() if FOREIGN.search(line)]


def svg_of(frame: Frame, *, width: int, title: str) -> str:
    """A frame as a picture that asks nobody for a font."""
    from rich.console import Console
    from rich.text import Text

    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        console = Console(file=nowhere, width=width, record=True, force_terminal=True, color_system="truecolor", highlight=False)
        console.print(Text.from_ansi(frame.coloured))
        return console.export_svg(title=title, code_format=SVG_FORMAT, unique_id="terminal")


def log_of(command: str, folder: Path) -> str:
    """What a command writes where there is no terminal, both streams in their order."""
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        subprocess.run(["sh", "-c", command], cwd=folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, check=True)
    return (folder / "log.txt").read_text(encoding="utf-8").strip("\n")


def sheet_of(taken: Sequence[Frame]) -> str:
    """Frames one below the other, each under its moment."""
    return "\n".join(f"===== {one.title}, after {one.seconds:.0f} s =====\n\n{one.text}\n" for one in taken)


def folder_in(base: Path, name: str) -> Path:
    """A folder with the space of the sweep."""
    folder = base / name
    folder.mkdir()
    (folder / "small.yaml").write_text(SPACE, encoding="utf-8")
    return folder


def main() -> int:
    """Runs the sweep once per width and once into a file, and writes texts and picture."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=FRAMES, help="the folder of the texts")
    parser.add_argument("--picture", type=Path, default=PICTURE, help="the SVG")
    args = parser.parse_args()
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    texts = {}
    with tempfile.TemporaryDirectory(prefix="frames-") as base:
        os.environ |= {"DPSWEEP_DATA_DIR": f"{base}/data", "OMP_NUM_THREADS": "1"}
        for name, domain, count, role in PEOPLE:
            line = ["dpsweep", "data", "synth", "--domain", domain, "--count", str(count), "--role", role, "--seed", str(count)]
            subprocess.run([*line, "--out", f"{base}/data/tiny/{name}"], check=True)
        for width in WIDTHS:
            folder = folder_in(Path(base), str(width))
            taken = frames(SWEEP, MOMENTS, width=width, folder=folder)
            texts[f"at_{width}_columns.txt"] = sheet_of(taken)
        middle = next(one for one in taken if one.title == MOMENTS[2][0])
        folder = folder_in(Path(base), "file")
        texts["without_a_terminal.txt"] = log_of(SWEEP, folder) + "\n"
    strangers = [line for text in texts.values() for line in foreign_lines(text)]
    if strangers:
        raise SystemExit("not ours:\n" + "\n".join(strangers))
    args.out.mkdir(exist_ok=True)
    for name, text in texts.items():
        (args.out / name).write_text(text, encoding="utf-8")
    args.picture.write_text(svg_of(middle, width=WIDTHS[-1], title=SWEEP), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
