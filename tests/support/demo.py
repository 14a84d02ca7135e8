"""Helpers of the demo's tests: a photograph with private metadata, and the page in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image, TiffImagePlugin

SECRET = b"Hidden Street 7"


def photograph_with_a_place() -> bytes:
    """A JPEG as a telephone writes it: lying on its side, with GPS data, a description, a comment and a thumbnail."""
    image = Image.new("RGB", (64, 48), "white")
    image.paste("red", (0, 0, 32, 24))  # top left as stored, top right once it is turned upright
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees clockwise
    exif[0x010E] = SECRET.decode()
    gps = exif.get_ifd(0x8825)
    gps[1], gps[2] = "N", tuple(TiffImagePlugin.IFDRational(n) for n in (51, 30, 0))
    gps[3], gps[4] = "W", tuple(TiffImagePlugin.IFDRational(n) for n in (0, 7, 0))
    gps[28] = SECRET  # GPSAreaInformation
    file = BytesIO()
    image.save(file, "JPEG", exif=exif, comment=SECRET, icc_profile=b"\0" * 100 + SECRET, quality=95)
    return file.getvalue()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """`python -m dermiq.demo` in a process of its own, whose home and temporary files lie in `folder`."""

    def __init__(self, model: Path, folder: Path, tokens: int) -> None:
        self.folder, self.port = folder, free_port()
        places = {"TMPDIR": folder / "tmp", "HOME": folder / "home", "XDG_CACHE_HOME": folder / "home"}
        for place in places.values():
            place.mkdir(parents=True, exist_ok=True)
        command = [
            sys.executable,
            "-m",
            "dermiq.demo",
            "--model",
            str(model),
            "--samples=3",
            f"--max-new-tokens={tokens}",
        ]
        self.process = subprocess.Popen(
            [*command, f"--port={self.port}"],
            cwd=folder,
            env={**os.environ, **{name: str(place) for name, place in places.items()}},
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job's children ignore it
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.said = ""
        for line in self.process.stdout:
            self.said += line
            if "The page" in line:
                return
        raise AssertionError(self.said)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def files(self) -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file()}

    def stop(self) -> int:
        """Ctrl-C, and the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
            self.said += self.process.communicate(timeout=60)[0]
        return self.process.wait()
