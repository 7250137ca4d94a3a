"""A command that imports torch before it reads its flags, as none of ours may."""

import argparse

import torch

if __name__ == "__main__":
    argparse.ArgumentParser(description=torch.__name__).parse_args()
