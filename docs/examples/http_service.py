"""Detections over HTTP: POST an image, get JSON. Needs neither PyTorch nor Detectron2.

python http_service.py exported/model_best.onnx 8000
curl --data-binary @street.jpg http://127.0.0.1:8000
"""

import io
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image
from vfnet_yolof.runtime import ExportedDetector

detector = ExportedDetector(sys.argv[1], score_thresh=0.3)
NAMES = detector.metadata.class_names


class Service(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            found = detector(Image.open(io.BytesIO(data)))
        except (OSError, ValueError) as error:  # no image, or one that the file does not take
            return self.answer(400, {"error": str(error)})
        rows = zip(found.classes, found.scores.tolist(), found.boxes.tolist(), strict=True)
        self.answer(200, [{"class": NAMES[i], "score": s, "box": b} for i, s, b in rows])

    def answer(self, status: int, content: object) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(content).encode())


server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2])), Service)
print(f"serves {sys.argv[1]} on http://127.0.0.1:{server.server_port}", flush=True)
server.serve_forever()
