"""The machine that a process runs on: its processes, disks and addresses."""
