"""Packages of the distribution: `launch/` and `configs/` install inside `pfm_jax`.

Everything else about the project is in pyproject.toml, which can't say this of found packages.
"""

from setuptools import find_packages, setup

INSIDE = find_packages(include=["launch", "launch.*", "configs", "configs.*"])

setup(
    packages=[*find_packages(include=["pfm_jax", "pfm_jax.*"]), *(f"pfm_jax.{p}" for p in INSIDE)],
    package_dir={f"pfm_jax.{package}": package.replace(".", "/") for package in INSIDE},
)
