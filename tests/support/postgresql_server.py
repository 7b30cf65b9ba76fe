"""A PostgreSQL of the tests' own: installed into a folder from a locked package, started on a free port, and gone
afterwards."""

import contextlib
import os
import pathlib
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

from components.processes import free_port

ROOT = pathlib.Path(__file__).parents[2]
USER = "bitsum"
_SETTINGS = "-c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories="


class Server:
    """A server whose programs are in `programs`, with its data, password and log in `folder`; `start` and `stop` as
    often as wanted."""

    def __init__(self, programs: pathlib.Path, folder: pathlib.Path):
        self.port = free_port("127.0.0.1")
        self.password_file = folder / "password"
        self._programs, self._folder = programs, folder
        self._password = secrets.token_urlsafe(16)
        self.password_file.write_text(self._password + "\n")
        self.password_file.chmod(0o644)
        self._call(
            "initdb",
            "-U",
            USER,
            "--auth=scram-sha-256",
            f"--pwfile={self.password_file}",
            "--no-sync",
            "--locale=C",
            "-E",
            "UTF8",
        )

    def settings(self, *more: str) -> tuple[str, ...]:
        """The knobs that put the metadata store on this server."""
        server = (f"metadata.port={self.port}", f"metadata.user={USER}", f"metadata.password_file={self.password_file}")
        return "metadata.backend=postgresql", *server, *more

    def url(self, database: str) -> str:
        """SQLAlchemy's URL of a database."""
        return f"postgresql+psycopg2://{USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        self._call(
            "pg_ctl", "start", "--wait", f"--log={self._folder / 'log'}", f"--options=-p {self.port} {_SETTINGS}"
        )

    def stop(self) -> None:
        self._call("pg_ctl", "stop", "--wait", "--mode=immediate")

    def query(self, database: str, sql: str) -> list[str]:
        """The lines that psql prints."""
        where = ["-h", "127.0.0.1", "-p", str(self.port), "-U", USER, "-d", database]
        command = [self._programs / "psql", "-X", "-A", "-t", *where, "-c", sql]
        environment = {**os.environ, "PGPASSWORD": self._password}
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.splitlines()

    def _call(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), *arguments, "-D", str(self._folder / "data")]
        # The server keeps these open for as long as it runs: a pipe would never end.
        with open(self._folder / "calls", "a+") as said:
            done = subprocess.run(
                command, cwd=self._folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **_somebody_else()
            )
            said.seek(0)
            assert done.returncode == 0, said.read()[-2000:]


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """A server that runs, in a folder that everybody can read: PostgreSQL refuses to be root, and pytest's folders are
    for one user."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bitsum-postgresql-"))
    folder.chmod(0o755)
    if os.getuid() == 0:
        shutil.chown(folder, **_somebody_else())
    try:
        server = Server(_install(folder / "installed"), folder)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder)


def _install(folder: pathlib.Path) -> pathlib.Path:
    """Where its programs are. The package's own Python modules are not used, so one wheel does for every Python."""
    pip = [
        ROOT / ".uv" / "tool" / "bin" / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-deps",
    ]
    options = ["--require-hashes", "--only-binary=:all:", "--python-version", "3.10", "--target", folder]
    subprocess.run([*pip, *options, "-r", ROOT / "requirements" / "postgresql.txt"], check=True)
    return next(folder.glob("*/pginstall/bin"))


def _somebody_else() -> dict[str, str]:
    return {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
