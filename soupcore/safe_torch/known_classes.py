"""Names in a pickle: those that `torch.load` may import, call and fill, and the harmful ones.

All lists are exact. A class is on a list if creating and filling an instance of it has no side
effects. README.md describes how to add one.
"""

from soupcore.safe_torch.tensors import HARMLESS_CALLS


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _paths(names: dict[str, str]) -> frozenset[str]:
    return frozenset(f"{module}.{name}" for module in names for name in names[module].split())


# Modules of networks. Unpickling one only imports its module and sets attributes: they are written
# in Python, and none has a `__reduce__`, or a `__setstate__` that does more than add attributes
# that older versions lacked. From torch 2.13, torchvision 0.28 and ultralytics 8.4, without
# quantized modules. `{module: names}`.
MODULE_CLASSES = {
    "torch.nn.modules.activation": """
        CELU ELU GELU GLU Hardshrink Hardsigmoid Hardswish Hardtanh LeakyReLU LogSigmoid
        LogSoftmax Mish MultiheadAttention PReLU RReLU ReLU ReLU6 SELU SiLU Sigmoid Softmax
        Softmax2d Softmin Softplus Softshrink Softsign Tanh Tanhshrink Threshold
    """,
    "torch.nn.modules.adaptive": "AdaptiveLogSoftmaxWithLoss",
    "torch.nn.modules.batchnorm": "BatchNorm1d BatchNorm2d BatchNorm3d SyncBatchNorm",
    "torch.nn.modules.channelshuffle": "ChannelShuffle",
    "torch.nn.modules.container": """
        ModuleDict ModuleList ParameterDict ParameterList Sequential
    """,
    "torch.nn.modules.conv": """
        Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d
    """,
    "torch.nn.modules.distance": "CosineSimilarity PairwiseDistance",
    "torch.nn.modules.dropout": """
        AlphaDropout Dropout Dropout1d Dropout2d Dropout3d FeatureAlphaDropout
    """,
    "torch.nn.modules.flatten": "Flatten Unflatten",
    "torch.nn.modules.fold": "Fold Unfold",
    "torch.nn.modules.instancenorm": "InstanceNorm1d InstanceNorm2d InstanceNorm3d",
    "torch.nn.modules.linear": "Bilinear Identity Linear NonDynamicallyQuantizableLinear",
    "torch.nn.modules.loss": """
        BCELoss BCEWithLogitsLoss CTCLoss CosineEmbeddingLoss CrossEntropyLoss GaussianNLLLoss
        HingeEmbeddingLoss HuberLoss KLDivLoss L1Loss LinearCrossEntropyLoss MSELoss
        MarginRankingLoss MultiLabelMarginLoss MultiLabelSoftMarginLoss MultiMarginLoss NLLLoss
        PoissonNLLLoss SmoothL1Loss SoftMarginLoss TripletMarginLoss
        TripletMarginWithDistanceLoss
    """,
    "torch.nn.modules.module": "Module",
    "torch.nn.modules.normalization": """
        CrossMapLRN2d GroupNorm LayerNorm LocalResponseNorm RMSNorm
    """,
    "torch.nn.modules.padding": """
        CircularPad1d CircularPad2d CircularPad3d ConstantPad1d ConstantPad2d ConstantPad3d
        ReflectionPad1d ReflectionPad2d ReflectionPad3d ReplicationPad1d ReplicationPad2d
        ReplicationPad3d ZeroPad1d ZeroPad2d ZeroPad3d
    """,
    "torch.nn.modules.pixelshuffle": "PixelShuffle PixelUnshuffle",
    "torch.nn.modules.pooling": """
        AdaptiveAvgPool1d AdaptiveAvgPool2d AdaptiveAvgPool3d AdaptiveMaxPool1d
        AdaptiveMaxPool2d AdaptiveMaxPool3d AvgPool1d AvgPool2d AvgPool3d FractionalMaxPool2d
        FractionalMaxPool3d LPPool1d LPPool2d LPPool3d MaxPool1d MaxPool2d MaxPool3d MaxUnpool1d
        MaxUnpool2d MaxUnpool3d
    """,
    "torch.nn.modules.rnn": "GRU GRUCell LSTM LSTMCell RNN RNNBase RNNCell RNNCellBase",
    "torch.nn.modules.sparse": "Embedding EmbeddingBag",
    "torch.nn.modules.transformer": """
        Transformer TransformerDecoder TransformerDecoderLayer TransformerEncoder
        TransformerEncoderLayer
    """,
    "torch.nn.modules.upsampling": "Upsample UpsamplingBilinear2d UpsamplingNearest2d",
    "torchvision.models.alexnet": "AlexNet",
    "torchvision.models.convnext": "CNBlock ConvNeXt LayerNorm2d",
    "torchvision.models.densenet": "DenseNet _DenseLayer _Transition",
    "torchvision.models.detection.anchor_utils": "AnchorGenerator DefaultBoxGenerator",
    "torchvision.models.detection.backbone_utils": "BackboneWithFPN",
    "torchvision.models.detection.faster_rcnn": """
        FastRCNNConvFCHead FastRCNNPredictor FasterRCNN TwoMLPHead
    """,
    "torchvision.models.detection.fcos": """
        FCOS FCOSClassificationHead FCOSHead FCOSRegressionHead
    """,
    "torchvision.models.detection.generalized_rcnn": "GeneralizedRCNN",
    "torchvision.models.detection.keypoint_rcnn": """
        KeypointRCNN KeypointRCNNHeads KeypointRCNNPredictor
    """,
    "torchvision.models.detection.mask_rcnn": "MaskRCNN MaskRCNNHeads MaskRCNNPredictor",
    "torchvision.models.detection.retinanet": """
        RetinaNet RetinaNetClassificationHead RetinaNetHead RetinaNetRegressionHead
    """,
    "torchvision.models.detection.roi_heads": "RoIHeads",
    "torchvision.models.detection.rpn": "RPNHead RegionProposalNetwork",
    "torchvision.models.detection.ssd": """
        SSD SSDClassificationHead SSDFeatureExtractorVGG SSDHead SSDRegressionHead
        SSDScoringHead
    """,
    "torchvision.models.detection.ssdlite": """
        SSDLiteClassificationHead SSDLiteFeatureExtractorMobileNet SSDLiteHead
        SSDLiteRegressionHead
    """,
    "torchvision.models.detection.transform": "GeneralizedRCNNTransform",
    "torchvision.models.efficientnet": "EfficientNet FusedMBConv MBConv",
    "torchvision.models.googlenet": "BasicConv2d GoogLeNet Inception InceptionAux",
    "torchvision.models.inception": """
        BasicConv2d Inception3 InceptionA InceptionAux InceptionB InceptionC InceptionD
        InceptionE
    """,
    "torchvision.models.maxvit": """
        MBConv MaxVit MaxVitBlock MaxVitLayer PartitionAttentionLayer
        RelativePositionalMultiHeadAttention SwapAxes WindowDepartition WindowPartition
    """,
    "torchvision.models.mnasnet": "MNASNet _InvertedResidual",
    "torchvision.models.mobilenetv2": "InvertedResidual MobileNetV2",
    "torchvision.models.mobilenetv3": "InvertedResidual MobileNetV3",
    "torchvision.models.regnet": """
        AnyStage BottleneckTransform RegNet ResBottleneckBlock SimpleStemIN
    """,
    "torchvision.models.resnet": "BasicBlock Bottleneck ResNet",
    "torchvision.models.segmentation._utils": "_SimpleSegmentationModel",
    "torchvision.models.segmentation.deeplabv3": """
        ASPP ASPPConv ASPPPooling DeepLabHead DeepLabV3
    """,
    "torchvision.models.segmentation.fcn": "FCN FCNHead",
    "torchvision.models.segmentation.lraspp": "LRASPP LRASPPHead",
    "torchvision.models.shufflenetv2": "InvertedResidual ShuffleNetV2",
    "torchvision.models.squeezenet": "Fire SqueezeNet",
    "torchvision.models.swin_transformer": """
        PatchMerging PatchMergingV2 ShiftedWindowAttention ShiftedWindowAttentionV2
        SwinTransformer SwinTransformerBlock SwinTransformerBlockV2
    """,
    "torchvision.models.vgg": "VGG",
    "torchvision.models.vision_transformer": """
        Encoder EncoderBlock MLPBlock VisionTransformer
    """,
    "torchvision.ops.deform_conv": "DeformConv2d",
    "torchvision.ops.drop_block": "DropBlock2d DropBlock3d",
    "torchvision.ops.feature_pyramid_network": """
        ExtraFPNBlock FeaturePyramidNetwork LastLevelMaxPool LastLevelP6P7
    """,
    "torchvision.ops.misc": """
        Conv2dNormActivation Conv3dNormActivation ConvNormActivation FrozenBatchNorm2d MLP
        Permute SqueezeExcitation
    """,
    "torchvision.ops.poolers": "MultiScaleRoIAlign",
    "torchvision.ops.ps_roi_align": "PSRoIAlign",
    "torchvision.ops.ps_roi_pool": "PSRoIPool",
    "torchvision.ops.roi_align": "RoIAlign",
    "torchvision.ops.roi_pool": "RoIPool",
    "torchvision.ops.stochastic_depth": "StochasticDepth",
    "ultralytics.nn.modules.activation": "AGLU",
    "ultralytics.nn.modules.block": """
        A2C2f AAttn ABlock AConv ADown Attention BNContrastiveHead Bottleneck BottleneckCSP C1
        C2 C2PSA C2f C2fAttn C2fCIB C2fPSA C3 C3Ghost C3TR C3f C3k C3k2 C3x CBFuse CBLinear CIB
        ContrastiveHead DFL ELAN1 GhostBottleneck HGBlock HGStem ImagePoolingAttn
        MaxSigmoidAttnBlock PSA PSABlock Proto Proto26 RealNVP RepBottleneck RepC3 RepCSP
        RepNCSPELAN4 RepVGGDW ResNetBlock ResNetLayer Residual SAVPE SCDown SPP SPPELAN SPPF
        SwiGLUFFN TorchVision
    """,
    "ultralytics.nn.modules.conv": """
        CBAM ChannelAttention Concat Conv Conv2 ConvTranspose DWConv DWConvTranspose2d Focus
        GhostConv Index LightConv RepConv SpatialAttention
    """,
    "ultralytics.nn.modules.head": """
        Classify Depth Detect LRPCHead OBB OBB26 Pose Pose26 RTDETRDecoder Segment Segment26
        SemanticSegment WorldDetect YOLOEDetect YOLOESegment YOLOESegment26 v10Detect
    """,
    "ultralytics.nn.modules.transformer": """
        AIFI DeformableTransformerDecoder DeformableTransformerDecoderLayer LayerNorm2d MLP
        MLPBlock MSDeformAttn TransformerBlock TransformerEncoderLayer TransformerLayer
    """,
    "ultralytics.nn.tasks": """
        BaseModel ClassificationModel DepthModel DetectionModel Ensemble OBBModel PoseModel
        RTDETRDetectionModel SegmentationModel SemanticSegmentationModel WorldModel YOLOEModel
        YOLOESegModel
    """,
}

MODULE_PATHS = _paths(MODULE_CLASSES)


# Modules of the standard library that may occur in checkpoints. Any other one in a pickle (os,
# subprocess, runpy, ...) is there to run code.
USUAL_MODULES = _words(
    """
    _collections_abc _datetime _decimal _io _operator _random abc argparse array builtins cmath
    collections configparser contextlib copy dataclasses datetime decimal enum fractions functools
    inspect io ipaddress itertools logging math numbers operator optparse pathlib queue random re
    statistics string textwrap time types typing uuid weakref zoneinfo
    """
)
# Packages of the standard library, in any version of Python. A name such as `code.models` belongs
# to a user's own package, since the library's `code` is a module and not a package.
PACKAGES = _words(
    """
    _pyrepl asyncio collections compression concurrent ctypes curses dbm distutils email encodings
    ensurepip html http idlelib importlib json lib2to3 logging msilib multiprocessing os pathlib
    pydoc_data pyexpat re sqlite3 string sysconfig test tkinter tomllib turtledemo unittest urllib
    venv wsgiref xml xmlrpc zipfile zoneinfo
    """
)
USUAL_NAMES = _paths(
    {"_codecs": "encode", "copyreg": "_reconstructor", "torch.serialization": "_get_layout"}
)
HARMFUL = _paths(
    {
        "builtins": "__import__ breakpoint compile delattr eval exec exit globals help input "
        "locals open quit setattr vars",
        "io": "FileIO open open_code",
        "_io": "FileIO open open_code",
        "operator": "attrgetter methodcaller",
        "types": "CodeType FunctionType",
        "numpy": "load",
        "torch": "load",
        "torch.storage": "_load_from_bytes",
    }
)
# Parts of other packages that run or download something given by a string.
HARMFUL_PACKAGES = (
    "numpy.f2py.",
    "numpy.testing.",
    "pip.",
    "setuptools.",
    "torch.hub.",
    "torch.jit.",
    "torch.serialization.",
    "torch.utils.collect_env.",
    "torch.utils.cpp_extension.",
)
# Classes and functions that may be called.
CALLED = _paths(
    {
        "builtins": "bytearray complex range slice",
        "collections": "Counter defaultdict deque",
        "datetime": "date datetime time timedelta timezone",
        "numpy": "dtype",
        "numpy._core.multiarray": "_reconstruct scalar",
        "numpy.core.multiarray": "_reconstruct scalar",
        "pathlib": "Path PosixPath PurePath PurePosixPath PureWindowsPath WindowsPath",
        "torch": "device",
        "types": "SimpleNamespace",
        "ultralytics.utils": "IterableSimpleNamespace",
    }
)
# Those whose instances may be appended to, may be set by key, and must have no arguments.
APPENDED = _paths({"collections": "deque"})
SET_BY_KEY = _paths({"collections": "Counter defaultdict"})
EMPTY = _paths({"types": "SimpleNamespace", "ultralytics.utils": "IterableSimpleNamespace"})
# Classes whose only argument must be a string.
TEXTS = _paths({"torch.torch_version": "TorchVersion"})
# Classes that may be instantiated.
MADE = (
    MODULE_PATHS
    | TEXTS
    | _paths(
        {
            "argparse": "Namespace",
            "collections": "OrderedDict",
            "omegaconf.base": "ContainerMetadata Metadata",
            "omegaconf.dictconfig": "DictConfig",
            "omegaconf.listconfig": "ListConfig",
            "omegaconf.nodes": "AnyNode BooleanNode FloatNode IntegerNode StringNode",
        }
    )
)
# Classes and functions that may be values, such as a norm layer or an activation. The code that
# uses one may call it with any arguments, so classes whose constructors do more are not listed.
VALUES = (
    HARMLESS_CALLS
    | _paths({module: MODULE_CLASSES[module] for module in MODULE_CLASSES if "torch.nn." in module})
    | _paths(
        {
            "builtins": "bool bytes dict float int list object str",
            "numpy": "ndarray",
            "omegaconf.dictconfig": "DictConfig",
            "torch": "Tensor",
            "torch._C._nn": "gelu softplus",
            "torch._tensor": "Tensor",
            "torch.nn.functional": "elu gelu hardswish leaky_relu mish relu relu6 sigmoid silu "
            "softmax tanh",
            "torch.nn.parameter": "Buffer Parameter",
            "typing": "Any Dict List Optional Tuple Union",
        }
    )
)
