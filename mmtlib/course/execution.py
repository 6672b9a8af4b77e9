"""Executing notebooks by papermill, in this Python, with a page of each that opens without a network."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from mmtlib import InputError


def execute(path: Path, copy: Path, parameters: dict[str, Any]) -> Path:
    """Execute one notebook; keep the executed `copy` (after a failure too) and, beside it, its HTML.

    A lesson refuses a parameter that its parameters cell does not have.

    Raises:
        papermill.exceptions.PapermillExecutionError: A cell failed.
    """
    # Checks of web addresses, of which notebooks have none, would compile a grammar for a second at every start; None
    # makes jsonschema do without, as where the package is not installed.
    sys.modules.setdefault("rfc3987_syntax", None)
    import papermill
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from traitlets import default
    from traitlets.config import Config

    from mmtlib.pages.notebooks import write_notebook_page

    class OwnKernel(AsyncKernelManager):
        """The kernel of this interpreter, whatever Python a `python3` on JUPYTER_PATH may be."""

        @default("kernel_spec_manager")
        def _no_other_kernels(self) -> KernelSpecManager:
            return KernelSpecManager(kernel_dirs=[])

    copy.parent.mkdir(parents=True, exist_ok=True)
    # Kernels talk over sockets in a private folder: no port is open, and ipykernel has nothing to warn about.
    with tempfile.TemporaryDirectory(prefix="mmt-kernel-", dir=_short_folder()) as sockets:
        # At the end all is written, and a kernel's farewell would take seconds.
        kernel, client = {"transport": "ipc", "ip": f"{sockets}/kernel"}, {"shutdown_kernel": "immediate"}
        try:
            papermill.execute_notebook(
                _literal(path),
                _literal(copy),
                parameters,
                kernel_name="python3",
                cwd=str(path.parent),
                progress_bar=False,
                start_timeout=600,  # a busy machine, or packages on a network drive
                config=Config({"KernelManager": kernel, "NotebookClient": client}),
                kernel_manager_class=OwnKernel,
            )
        finally:
            if copy.exists():
                write_notebook_page(copy)
    return copy


def _short_folder() -> str:
    """A folder for temporary files whose name leaves room for a socket's: the system takes about 100 bytes in all."""
    places = tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR", ""), "/tmp", "/var/tmp"
    for place in places:
        if 0 < len(os.fsencode(place)) <= 65 and os.access(place, os.W_OK):
            return place
    raise InputError(f"no folder for sockets: {places[0]} is too long a name; set TMPDIR to a shorter one")


def _literal(path: Path) -> str:
    """A path as papermill takes it: it would fill in parameters where there are braces."""
    return str(path).replace("{", "{{").replace("}", "}}")
