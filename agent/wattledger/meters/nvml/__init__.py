"""GPUs through NVML: the energy counter, or the best power estimate that a board offers.

binding     the door to nvidia-ml-py
remedies    what to do about each error code
session     NVML's own life            roster      which GPUs there are
facts       what is fixed about a GPU  gpu         one GPU through losses and returns
ladder      which estimator serves it  estimators  samples  crosscheck  activity
lists       the driver's process lists processes   who is on a GPU
mig         who is on which instance   multiprocessors  how much each of them uses
meter       `NvmlMeter`                survey      every GPU looked at once, for `doctor`
"""
