"""Benchmarks that decide: no speed without the parity gate passed on the same shape in the same run.

python -m benchmarks.cpu          student against eager PyTorch and the classical denoisers, on a CPU (`make bench`)
python -m benchmarks.gpu          everything a GPU is needed for, in two calls of 8 minutes (`make gpu OUT=DIR`)
python -m pytest benchmarks       all suites under pytest-benchmark
python -m benchmarks.engines      the student in OpenVINO and onnxruntime, and OIDN, beside fastbsn on a CPU
python -m benchmarks.vnni         INT8 on a CPU: its quality, and its speed beside bfloat16
python -m benchmarks.peers        other denoisers on the same images, speed and PSNR
python -m benchmarks.ablation     what each part of the method is worth
python -m benchmarks.speedrun     time from noisy images to a PSNR target
python -m benchmarks.report       README tables and figures from benchmarks/results/*.json
"""
