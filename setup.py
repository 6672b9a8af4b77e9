"""What pyproject.toml cannot say: a wheel carries the files that `mmt init` copies, which lie beside the package."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

CHECKOUT = Path(__file__).resolve().parent
sys.path.insert(0, str(CHECKOUT))

from mmtlib.course.starter import BUNDLE, copy_files  # noqa: E402  (it needs nothing but Python)


class BuildWithStarterFiles(build_py):
    """Copies the package and, into it, the files; an editable install finds them in the checkout."""

    def run(self) -> None:
        """Build."""
        super().run()
        if not self.editable_mode:
            bundle = Path(self.build_lib) / "mmtlib" / BUNDLE
            shutil.rmtree(bundle, ignore_errors=True)  # of an earlier build
            copy_files(CHECKOUT, bundle)


setup(cmdclass={"build_py": BuildWithStarterFiles})
