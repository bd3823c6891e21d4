"""Programs around the Python API: how they begin, end, fork and are interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

START = """
import os, signal, sys, threading
import numpy as np
import fogmqtt
signal.signal(signal.SIGINT, signal.default_int_handler)
image = np.arange(1200, dtype=np.uint8).reshape(30, 40)
large = np.zeros((600, 600, 3), np.uint8)
SLOW = "denoise h=10 template=9 search=35"
"""


def program(code: str, folder: Path) -> subprocess.Popen[str]:
    """Start a program that Ctrl-C interrupts, even if these tests run in the background."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", START + textwrap.dedent(code)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(code: str, folder: Path, *, exit_code: int = 0) -> str:
    """What a program prints; it must end by itself, and print no error."""
    process = program(code, folder)
    out, err = process.communicate(timeout=100)
    assert process.returncode == exit_code, err
    if exit_code == 0:
        assert err == ""
    return out if exit_code == 0 else err


def test_a_program_that_never_closes_its_fog_ends(tmp_path: Path) -> None:
    out = run(
        """
        fog = fogmqtt.connect("local")
        print(fog.run(image, "invert")[0, :3].tolist())
        """,
        tmp_path,
    )
    assert out == "[255, 254, 253]\n"


def test_a_program_ends_while_a_job_is_under_way(tmp_path: Path) -> None:
    run(
        """
        fog = fogmqtt.connect("local")
        job = fog.submit(large, SLOW, tiles="grid 8x8")
        while not job.running():
            pass
        """,
        tmp_path,
    )


def test_an_error_of_the_program_keeps_its_traceback_and_exit_code(tmp_path: Path) -> None:
    err = run(
        """
        with fogmqtt.connect("local") as fog:
            job = fog.submit(large, SLOW)
            raise ValueError("mine")
        """,
        tmp_path,
        exit_code=1,
    )
    assert err.endswith("ValueError: mine\n")


def test_ctrl_c_ends_the_job_and_leaves_the_fog_usable(tmp_path: Path) -> None:
    out = run(
        """
        with fogmqtt.connect("local") as fog:
            fog.run(image, "invert")
            def interrupt():
                while not fog._door.jobs():
                    pass
                os.kill(os.getpid(), signal.SIGINT)
            threading.Thread(target=interrupt).start()
            try:
                fog.run(large, SLOW, tiles="grid 8x8")
            except KeyboardInterrupt:
                print("interrupted")
            while fog._door.jobs():
                pass
            print(fog.run(image, "invert")[0, 0])
        """,
        tmp_path,
    )
    assert out == "interrupted\n255\n"


def test_a_killed_program_leaves_no_process(tmp_path: Path) -> None:
    code = """
    fog = fogmqtt.connect("local")
    fog.run(large, "invert", tiles="grid 2x2")
    job = fog.submit(large, SLOW, tiles="grid 8x8")
    while job.progress.done < 2:
        pass
    print("ready", flush=True)
    job.result()
    """
    with program(code, tmp_path) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        children = psutil.Process(process.pid).children(recursive=True)
        assert children
        process.kill()
    assert psutil.wait_procs(children, 10)[1] == []


def test_a_forked_process_is_told_to_connect_again(tmp_path: Path) -> None:
    out = run(
        """
        import warnings
        # Python 3.12 warns of forks with threads.
        warnings.simplefilter("ignore", DeprecationWarning)
        fog = fogmqtt.connect("local")
        job = fog.submit(image, "invert")
        job.result()
        pid = os.fork()
        if not pid:
            for call in (lambda: fog.run(image, "invert"), job.result, fog.devices):
                try:
                    call()
                except fogmqtt.FogError as problem:
                    print(problem)
            fog.close()
            with fogmqtt.connect("local") as mine:
                print(mine.run(image, "invert")[0, 0], flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        print(fog.run(image, "invert")[0, 0])
        """,
        tmp_path,
    )
    lines = out.splitlines()
    assert len(lines) == 5
    assert all("belongs to another process" in line for line in lines[:3])
    assert lines[3:] == ["255", "255"]


def test_a_fog_is_not_sent_to_another_process(tmp_path: Path) -> None:
    out = run(
        """
        import pickle
        fog = fogmqtt.connect("local")
        try:
            pickle.dumps(fog)
        except fogmqtt.FogError as problem:
            print(problem)
        """,
        tmp_path,
    )
    assert out == "a fog cannot be sent to another process; connect again there\n"


def test_processes_of_multiprocessing_have_fogs_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "many.py").write_text(
        textwrap.dedent(
            """
            import multiprocessing
            import numpy as np
            import fogmqtt

            def work(value):
                with fogmqtt.connect("local") as fog:
                    return int(fog.run(np.full((4, 4), value, np.uint8), "invert")[0, 0])

            if __name__ == "__main__":
                with multiprocessing.get_context("spawn").Pool(2) as pool:
                    print(pool.map(work, [1, 2, 3]))
            """
        )
    )
    out = run("import runpy; runpy.run_path('many.py', run_name='__main__')", tmp_path)
    assert out == "[254, 253, 252]\n"


@pytest.mark.skipif(not os.uname().machine.startswith("x86"), reason="IPP is for x86 only")
def test_opencv_that_was_used_before_is_a_warning(tmp_path: Path) -> None:
    code = """
    import sys
    import cv2, numpy as np
    cv2.bilateralFilter(np.zeros((99, 99), np.uint8), 9, 30, 30)
    import warnings
    import fogmqtt
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fogmqtt.connect("local").close()
    print(*(one.message for one in caught))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    plain = {key: value for key, value in os.environ.items() if not key.startswith("OPENCV")}
    done = subprocess.run(
        command, cwd=tmp_path, env=plain, capture_output=True, text=True, check=True
    )
    assert "OpenCV was used before fogmqtt was imported" in done.stdout


def test_plug_ins_of_two_fogs_must_agree_and_are_those_of_the_configuration(
    tmp_path: Path,
) -> None:
    emboss = Path(__file__).parents[2] / "examples/operators/fog_examples/emboss.py"
    (tmp_path / "config.yaml").write_text(
        f"plugins: [{emboss}]\nmodels: shelf\npipelines: {{relief: gray | emboss}}\n"
    )
    (tmp_path / "other.yaml").write_text("gateway: {id: other}\n")
    out = run(
        """
        with fogmqtt.connect("local") as fog:  # config.yaml of the working directory
            print(fog.run(image, "relief").shape, os.path.basename(fog.config.models))
            with fogmqtt.connect("local") as another:
                print(another.run(image, "relief").shape)
            try:
                fogmqtt.connect("other.yaml")
            except fogmqtt.UsageError as problem:
                print(str(problem).partition(" (")[0])
        print("FOGMQTT_MODELS" in os.environ)
        """,
        tmp_path,
    )
    assert out.splitlines() == [
        "(30, 40) shelf",
        "(30, 40)",
        "a fog of this process is open with other plug-ins or another model folder",
        "False",
    ]
