"""GPUs through NVML: the energy counter, or the best power estimate that a board offers.

binding     the door to nvidia-ml-py
remedies    what to do about each error code
session     NVML's own life            roster      which GPUs there are
facts       what is fixed about a GPU  gpu         one GPU through losses and returns
ladder      which estimator serves it  estimators  samples  crosscheck  processes
meter       `NvmlMeter`                survey      every GPU looked at once, for `doctor`
"""
