"""The machine: files, devices, arrays on disk, interrupts."""
