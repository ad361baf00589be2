"""Runs the llama-server that the package xllamacpp has inside, and prints where it listens.

Arguments: the directory of the package, the model's file, slots, tokens of all slots, threads.
"""

import signal
import sys

directory, model, slots, tokens, threads = sys.argv[1:]
sys.path.insert(0, directory)

import xllamacpp  # noqa: E402 - it is only there now

params = xllamacpp.CommonParams()
params.model.path = model
params.n_parallel = int(slots)
params.n_ctx = int(tokens)
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = int(threads)
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
signal.pause()
