"""A stored student for runtimes other than torch: an ONNX file, its weights lighter if asked.

onnx_file.py    writes it, once ONNX Runtime has said what the student says
onnx_model.py   the model in memory
agreement.py    what ONNX Runtime makes of it
lighter.py      its weights in fewer bits;   gain.py   what these bring and cost
trained_on.py   the images that its trial was trained on and chosen by
"""
