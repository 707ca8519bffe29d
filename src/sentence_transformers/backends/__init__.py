"""How a transformer computes: torch today (with weights pre-packed on CPU); ONNX and OpenVINO join here."""
