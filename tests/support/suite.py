#!/usr/bin/env python3
"""Runs unittest files and reports one line per test:

    suite.py [--short] [-k WORD] FILE...

--short leaves out tests marked @slow. Ends with `N passed, N failed, N skipped`; exit status 0, 1 or, when all
tests were skipped, 77.
"""
import argparse
import importlib.util
import os
import signal
import sys
import time
import traceback
import unittest

sys.path.insert(0, os.path.dirname(__file__))


class Lines(unittest.TestResult):
    def __init__(self):
        super().__init__()
        self.passed = self.failed = self.left_out = 0
        self.started = 0.0

    def startTest(self, test):
        super().startTest(test)
        self.started = time.monotonic()

    def say(self, mark, test, note=""):
        name = getattr(test, "_testMethodName", "") or str(test)
        group = type(test).__name__ if hasattr(test, "_testMethodName") else ""
        took = f" ({time.monotonic() - self.started:.2f} s)" if mark == "ok" and self.started else ""
        words = name.removeprefix("test_").replace("_", " ")
        print(f"{mark:4} {group + ': ' if group else ''}{words}{took}{note}", flush=True)

    def addSuccess(self, test):
        self.passed += 1
        self.say("ok", test)

    def bad(self, test, error):
        self.failed += 1
        # Without unittest's own frames; a test class' set-up has no test to hang them on.
        text = self._exc_info_to_string(error, test) if isinstance(test, unittest.TestCase) else "".join(
            traceback.format_exception(*error))
        self.say("FAIL", test, "\n" + "\n".join("    " + line for line in text.splitlines()))

    def addError(self, test, err):
        super().addError(test, err)
        self.bad(test, err)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.bad(test, err)

    def addSubTest(self, test, subtest, err):
        if err:
            self.failures.append((test, ""))
            self.failed += 1
            self.say("FAIL", test, f" {subtest._subDescription()}\n" + self._exc_info_to_string(err, test))

    def addSkip(self, test, reason):
        self.left_out += 1
        self.say("skip", test, f": {reason}")


def load(path):
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def main():
    # A shell's background job ignores it, and so would all that the tests start and interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--short", action="store_true")
    options.add_argument("-k", action="append", metavar="WORD")
    options.add_argument("files", nargs="+")
    given = options.parse_args()
    if given.short:
        os.environ["HUTCHTEST_SHORT"] = "1"
    loader = unittest.TestLoader()
    loader.testNamePatterns = [f"*{k}*" for k in given.k] if given.k else None
    result = Lines()
    for path in given.files:
        loader.loadTestsFromModule(load(path)).run(result)
    print(f"{result.passed} passed, {result.failed} failed, {result.left_out} skipped")
    if result.failed:
        sys.exit(1)
    sys.exit(77 if result.passed == 0 else 0)


if __name__ == "__main__":
    main()
