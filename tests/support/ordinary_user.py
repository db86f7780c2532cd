"""Servers of an ordinary user, in tests that root runs."""
import os
import shutil
import subprocess
import unittest

from sandbox_case import HUTCH, SLOW

USER = 65533


class OrdinaryUser:
    """Before the base of a test case: all that it starts of hutch is this user's, with its data folder."""

    @classmethod
    def setUpClass(cls):
        if os.geteuid() != 0 or not shutil.which("setpriv"):
            raise unittest.SkipTest("changes the user, for which it takes root and setpriv")
        cls.run_as = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups", "--"]
        folder = cls.data_folder()
        cls.program = shutil.copy(HUTCH, folder)  # the build folder may be root's own
        os.chmod(cls.program, 0o755)
        said = subprocess.run([*cls.run_as, cls.program, "doctor"], capture_output=True, text=True, stdin=subprocess.DEVNULL,
                              timeout=60 * SLOW, env={"PATH": os.environ["PATH"], "HOME": folder, "HUTCH_HOME": folder})
        if said.returncode == 1:
            raise unittest.SkipTest(f"users can run no sandboxes on this host: {said.stdout}")
        super().setUpClass()

    @classmethod
    def data_folder(cls):
        folder = super().data_folder()
        os.chown(folder, USER, USER)
        os.chmod(folder, 0o711)
        return folder
