"""The HTCL model: towers, heads, fusion, saving and loading.

htcl            the model, its heads and its configuration
audio_encoder   convolutions and a Transformer over log-mels (the paper)
adapter         the tower over a frozen front end
semantic_space  the semantic space over a frozen front end: sound and text
preference      the encoder of the preference space, over a frozen front end
text_encoder    the pretrained text encoder and its tokens
batching        padding and crops
saving          checksums and metadata of model folders
interpolate     interpolates the weights of two models
starter         the starter model in the package
released        imports the authors' released weights
pickled         converts a .pth file, in a process of its own
onnx            exports both towers as ONNX
"""
