"""Trained detectors as files that other programs run: ONNX, OpenVINO IR, torch.export."""
