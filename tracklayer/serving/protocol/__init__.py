"""The Open Inference Protocol's gRPC messages.

``open_inference_pb2.py`` and its types are generated; ``open_inference.proto`` says how.
"""
