"""The machine: files, devices, memory, arrays on disk, interrupts."""
