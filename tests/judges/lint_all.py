"""Runs pkilint over many files in one process, for its imports take a second.

In: a JSON list of [name, program, arguments]. Out: a JSON object of name to a list of [severity, code, path]; what the program
cannot even read is the severity FATAL. The programs are those that the package installs, unchanged.
"""

import contextlib
import importlib
import io
import json
import sys


def complaints(program, arguments):
    main = importlib.import_module("pkilint.bin." + program).main
    out, err = io.StringIO(), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main(["lint", "-f", "JSON", "-s", "INFO", *arguments])
        results = json.loads(out.getvalue())["results"]
    except (Exception, SystemExit) as error:
        return [["FATAL", "unreadable", err.getvalue().strip() or repr(error)]]
    return [
        [found["severity"], found["code"], result["node_path"]]
        for result in results
        for found in result["finding_descriptions"]
    ]


json.dump({name: complaints(program, arguments) for name, program, arguments in json.load(sys.stdin)}, sys.stdout)
