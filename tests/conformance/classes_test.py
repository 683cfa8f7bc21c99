#!/usr/bin/env python3
"""Reverts small exports of every class with a conversion mapping and holds them against transformers' own reversal.

Float: transformers' `revert_weight_conversion`, every transform taken as used, against `quantport revert`, with and without a
reference. Quantized, NVFP4-like: transformers' reversal runs once for each kind of stored tensor, on stand-ins that carry that kind's
bytes under the weight's name, since it can't reverse scales itself; experts are given to it stacked and to quantport expanded.

    classes_test.py [--match REGEX] [-v]      exit status 1 where a class differs
"""
import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from oracle import Tally, cases, check_revert


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--match", default="")
    parser.add_argument("-v", action="store_true")
    options = parser.parse_args()
    tally = Tally(options.v)
    with ThreadPoolExecutor(2) as pool:
        for name, results in pool.map(lambda case: (case.name, check_revert(case)), cases(options.match)):
            tally.add(name, results)
    return tally.failed()


if __name__ == "__main__":
    sys.exit(main())
