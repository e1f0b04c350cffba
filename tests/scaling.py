#!/usr/bin/env python3
"""Holds one thread of a process still, at many moments, and looks whether the other can go on meanwhile.

  scaling.py PID NAME SAMPLES     the threads are the two whose names begin with NAME

A thread that is held while it has a lock makes the other wait for it in a futex call: it is in one a while later, and still after
another while. Prints how often that was so. Needs to be allowed to trace the process.
"""
import ctypes
import os
import platform
import sys
import time

FUTEX = {"x86_64": 202, "aarch64": 98}[platform.machine()]
CONT, SEIZE, INTERRUPT, WALL = 7, 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


def ptrace(request, task):
    if libc.ptrace(request, task, None, None) != 0:
        error = ctypes.get_errno()
        sys.exit(f"cannot trace thread {task}: {os.strerror(error)} (run as root, or allow it: kernel.yama.ptrace_scope=0)")


def threads(pid, name):
    found = []
    for task in sorted(map(int, os.listdir(f"/proc/{pid}/task"))):
        with open(f"/proc/{pid}/task/{task}/comm") as comm:
            if comm.read().startswith(name):
                found.append(task)
    return found


def waits(pid, task):
    """Whether a thread is in a futex call."""
    with open(f"/proc/{pid}/task/{task}/syscall") as call:
        return call.read().split()[0] == str(FUTEX)


def main():
    pid, name, samples = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    held, other = threads(pid, name)
    ptrace(SEIZE, held)
    waited = 0
    for sample in range(samples):
        # Odd times, so that no rhythm of the load decides where it is held.
        time.sleep(0.0005 + sample % 7 * 0.0001)
        ptrace(INTERRUPT, held)
        os.waitpid(held, WALL)
        time.sleep(0.001)
        if waits(pid, other):
            time.sleep(0.01)
            waited += waits(pid, other)
        ptrace(CONT, held)
    print(waited)


if __name__ == "__main__":
    main()
