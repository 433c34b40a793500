"""Sections of the configuration and the base of all studies: keys, types, defaults and documentation.

Imports nothing heavy.
"""

import functools
from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self, get_args

from pydantic import AfterValidator, BeforeValidator, Field, SerializeAsAny, create_model, field_validator
from pydantic_core import PydanticCustomError, ValidationError

from goldilocks_zone.config import kinds, values
from goldilocks_zone.config.values import Amount, Count, Name, NonNegative, Positive, RunName, Section, Several, Varied
from goldilocks_zone.data.catalogue import LIMIT_MIB
from goldilocks_zone.data.official_shapes import Shape
from goldilocks_zone.figures.registry import FigureSettings
from goldilocks_zone.models import labels, user_code
from goldilocks_zone.subspaces import labels as subspace_labels

Initialisation = Literal["glorot", "he", "isotropic", "uniform"]
Metric = Literal["identity", "shell", "inverse_shell", "sigma"]
Inputs = Literal["standardised", "unit_interval", "minus_one_to_one", "mean_image_removed", "gaussian"]
DataType = Literal["float64", "float32"]
# By name: shapes of datasets and descriptions of networks, as far as they are known before a run.
Shapes = Mapping[str, Shape]
Networks = Mapping[str, labels.Network]
CountOrAll = Count | Literal["all"]
Plane = Annotated[str, AfterValidator(lambda label: _parsed(subspace_labels.parse_plane, label))]
Subspace = Annotated[str, AfterValidator(lambda label: _parsed(subspace_labels.parse_subspace, label))]


def _parsed(parse, label: str) -> str:
    try:
        parse(label)
    except ValueError as error:
        values.refuse(str(error))
    return label


class Dataset(Section, title="Dataset"):
    """A user's own dataset."""

    path: str | None = None
    """An .npz file, a folder of images, or an archive of such a folder (.tar, .tar.xz, .tar.gz, .tgz, .tar.bz2, .zip);
    by default the one in the data folder that has the dataset's name."""
    channels: Literal["first", "last"] | None = None
    """Position of the channel axis; needed if the shape is ambiguous."""
    white: Positive | None = None
    """Value of white, such as 1, 16 or 65535; grey levels are rescaled so that white becomes 255, and rounded. By
    default 255, and grey levels must be whole numbers."""
    licence: str | None = None
    """One-line licence for the paper and the data file; by default, they say that no licence is stated."""
    limit_mib: Count = LIMIT_MIB
    """Largest unpacked size of the dataset, in MiB."""


class Network(Section, title="Network"):
    """A user's own network."""

    file: str
    """Self-contained Python file; results depend on its code."""
    name: str
    """Class or function in the file that takes the image shape (channels, height, width) and the number of classes, and
    returns a torch.nn.Module."""
    arguments: dict[str, Any] = Field({})
    """Additional keyword arguments."""

    @field_validator("arguments")
    @classmethod
    def _refuse_other(cls, arguments: dict[str, Any]) -> dict[str, Any]:
        values.refuse_other_than_plain(arguments)
        return arguments

    @functools.cached_property
    def code(self) -> user_code.UserNetwork:
        """The network's file, name and arguments, with a fingerprint of its code.

        Raises ValueError, with a message of one sentence, if the file is missing, is not valid Python or does not
        define the name.
        """
        return user_code.describe(self.file, self.name, self.arguments)


class RadiusRange(Section, title="Range of radii"):
    """Logarithmically spaced radii."""

    first: Positive
    """smallest radius"""
    last: Positive
    """largest radius"""
    number: Count
    """number of radii"""

    @field_validator("last")
    @classmethod
    def _refuse_descending(cls, last: float, known: Any) -> float:
        if last <= known.data.get("first", 0):
            values.refuse(f"{last} is impossible; it must be greater than first")
        return last


class Study(Section):
    """Keys and methods that all kinds of studies share.

    The models in `goldilocks_zone.measurements` are derived from this class, and add the keys of each kind. A varied
    key is one that takes several values in a study, as listed in the section `vary`. A variant {key: value} has one
    value for some or all of the varied keys.
    """

    kind: str
    datasets: Several[str]
    """Datasets: mnist, fashion_mnist, cifar10, annuli (synthetic) or your own."""
    networks: Several[str]
    """Names of your own networks, or labels fc-<widths>-<activation>[-nobias][-res][-ln] (widths as 200x2 or 300-100;
    res adds the input of a hidden layer, from the second on, to its output of the same width; ln normalises
    pre-activations over a layer's units, without parameters), conv-<channels>x<blocks>-<activation>[-nobias] (blocks of
    3 × 3 convolution, 2 × 2 max pooling and activation, then a dense layer) or lenet5[-<activation>][-nobias];
    activation relu, leakyrelu, tanh, softplus, sigmoid or identity."""
    subspaces: Several[str]
    radii: Several[Positive] | RadiusRange
    """Radii, a list or {first, last, number} spaced logarithmically."""
    radius_unit: Literal["r_X", "norm", "init_scale"] = "r_X"
    """Unit of the radii; r_X is the norm under Glorot initialisation, norm the plain norm, init_scale a factor on the
    initialisation."""
    draws: Annotated[Count, Field(le=1000)]
    """Number of random initialisations, each with its own seed."""
    initialisation: Varied[Initialisation] = "glorot"
    """Distribution of the initialisation before it is rescaled to a radius: glorot and he, Gaussian weights and zero
    biases; isotropic, one Gaussian for all parameters; uniform, weights and biases as torch draws them."""
    metric: Varied[Metric] = "shell"
    """Relative length η of a plane's directions in each layer: identity, 1; shell, in proportion to the norm of the
    layer's initial weights; inverse_shell, to the inverse of this norm; sigma, to their standard deviation."""
    bias_directions: Varied[bool] = False
    """Whether planes and spheres include directions of biases and gains."""
    loss: Varied[Literal["cross_entropy", "mean_squared_error"]] = "cross_entropy"
    """The loss; mean squared error is a control without softmax. Studies of joint embeddings have their own losses."""
    classes: Varied[Annotated[int, Field(ge=2)] | None] = None
    """Number of classes: the first ones of the dataset; all if absent. Not for studies of kind boundary, which have
    only_classes, and jepa_curvature."""
    validation: Amount = 500
    """Training examples held out for validation and excluded from every Hessian."""
    vary: dict[str, list] = Field({})
    """Keys of this study that take several values, such as {metric: [identity, shell]}; each becomes a dimension of
    the results."""

    @classmethod
    @functools.cache
    def varied(cls) -> type[Section]:
        """Model of the section `vary`: for each key of a study that is marked as `Varied`, a list of its values."""
        fields = {key: field for key, field in cls.model_fields.items() if values.VARIES in field.metadata}
        lists: dict[str, Any] = {key: (Several[_one_value(field)] | None, None) for key, field in fields.items()}
        return create_model("Vary", __base__=Section, **lists)

    @field_validator("vary", mode="before")
    @classmethod
    def _check_varied(cls, vary: object) -> object:
        cls.varied().model_validate(vary)
        return vary

    @property
    def variations(self) -> dict[str, list]:
        """Values of the varied keys, by key; each of these keys becomes a dimension of the results."""
        return self.vary

    def at(self, variant: Mapping[str, Any]) -> Self:
        """Copy of the study in which the keys of a `variant`, {key: value}, have a single value each."""
        return self.model_copy(update=dict(variant))

    @abstractmethod
    def check(self, path: str, shapes: Shapes, networks: Networks) -> None:
        """Raise ConfigurationError for settings that do not fit the study's datasets and networks.

        `path` is the study's key in the configuration. `shapes` maps names of datasets to their shapes, and `networks`
        maps labels of built-in networks to their descriptions. Both contain only entries that are known before a run.
        """

    @property
    def work(self) -> str:
        """Kind of work that this study's jobs do: a key of `Kind.speeds`."""
        return self.kind

    @abstractmethod
    def operations(self, network: labels.Network, shape: Shape, subspace: str, draws: int, radii: int) -> float:
        """Estimated number of floating-point operations of a job with these numbers of `draws` and `radii`.

        `shape` is that of the job's dataset; `subspace` is a label.
        """


def _one_value(field) -> Any:
    """Type of one value of a key, from its pydantic `field`, with the option None removed."""
    annotation = field.annotation
    if type(None) in get_args(annotation):
        (annotation,) = (each for each in get_args(annotation) if each is not type(None))
    return Annotated[annotation, *field.metadata]


class Cuts(Section, title="Cuts"):
    """Cuts through the loss around one initialisation."""

    bias_directions: ClassVar[bool] = False
    dataset: str = "mnist"
    """Dataset: mnist, fashion_mnist, cifar10, annuli (synthetic) or your own."""
    network: str = "fc-200x2-relu"
    """Name of one of your own networks, or a label as in studies."""
    radii: Several[Positive] = Field([0.1, 0.464158883, 1, 2.15443469, 10])
    """Radii in units of r_X; the first initialisation of the studies is rescaled to each of them."""
    examples: Count = 250
    """Number N of training examples in the loss: the first N of those that studies use."""
    subspace: Plane = "plane-5-sparse"
    """Label of a random plane; one-dimensional cuts run along its orthonormal columns, the first two of which span the
    two-dimensional cut."""
    extent: Positive = 1.0
    """Half-width of the cuts, in units of the radius."""
    steps: Count = 30
    """Steps of a one-dimensional cut on either side of its centre."""
    plane_steps: Count = 15
    """Steps of the two-dimensional cut on either side of its centre, along each axis."""
    metric: Metric = "shell"
    """Relative length η of the directions in each layer, as in studies."""
    initialisation: Initialisation = "glorot"
    """Distribution of the initialisation before it is rescaled to a radius, as in studies."""
    inputs: Inputs = "standardised"
    """Preprocessing of the images, as in studies."""
    validation: Amount = 500
    """Training examples held out for validation and excluded from the loss."""

    @field_validator("subspace")
    @classmethod
    def _refuse_lines(cls, label: str) -> str:
        if subspace_labels.parse_plane(label).dimension < 2:
            values.refuse(f"{label} has one dimension; the two-dimensional cut needs two or more")
        return label


class Execution(Section, title="Execution"):
    """How the work is executed; no number depends on it."""

    draws_per_job: CountOrAll | dict[str, CountOrAll] = 2
    """Draws per job, or all; or a value for each study, such as {chang: 1, others: 20}, where others is all by
    default."""
    radii_per_job: CountOrAll = "all"
    """Radii per job, or all; all shares the most work between radii."""
    threads: Count = 1
    """Threads per measurement job."""
    memory_mib: Annotated[int, Field(ge=64)] = 768
    """Memory in MiB that a job may use for one pass of differentiation, besides about 700 MiB for torch and the data;
    on a GPU, the pass uses up to half of the GPU's memory, and at most 8 GiB."""
    runtime: Count = 240
    """Time limit of a measurement job on a cluster, in minutes; each retry gets as many minutes more."""
    gpus: Amount = 0
    """GPUs per measurement job on a cluster; on a single machine, jobs divide its GPUs among themselves."""
    checkpoint_seconds: NonNegative = 60
    """Minimum seconds between training checkpoints, which take at most 5 % of the time."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto is CUDA if available."""


def _study(given: object) -> Study:
    """Build a study from its settings, `given`, with the model of its kind; a study is returned unchanged."""
    if isinstance(given, Study):
        return given
    kind = given.get("kind", kinds.USUAL) if isinstance(given, dict) else kinds.USUAL
    names = list(kinds.known())
    if kind not in names:
        unknown = PydanticCustomError("unknown_value", "{known}", {"known": names})
        raise ValidationError.from_exception_data("study", [{"type": unknown, "loc": ("kind",), "input": kind}])
    return kinds.known()[kind].model.model_validate(given)


StudyOfAnyKind = Annotated[SerializeAsAny[Study], BeforeValidator(_study)]


class Configuration(Section, title="The whole"):
    """All settings of a run."""

    run: RunName
    """Name of the run, whose output is in results/<run>, figures/<run> and logs/<run>."""
    seed: Amount = 1
    """Seed in the name of every random stream; another seed gives an independent replication."""
    data_folder: str | None = None
    """Folder with official data files, tried before any download, and with your own datasets, found by name; the
    environment variable GOLDILOCKS_DATA overrides it."""
    missing_datasets: Literal["fail", "leave_out"] = "fail"
    """Whether to fail if `make data` found a dataset unavailable, or to leave that dataset out and say so in the
    paper."""
    results_from: str | None = None
    """Archive written by make archive; its blocks are verified and used instead of being computed."""
    datasets: dict[Name, Dataset] = Field({})
    """Your own datasets, by name; see below."""
    substitutes: dict[str, str] = Field({})
    """Datasets to use instead of others, such as {cifar10: mine}; results carry the substitute's name."""
    networks: dict[Name, Network] = Field({})
    """Your own networks, by name; see below."""
    studies: dict[Name, StudyOfAnyKind] = Field(min_length=1)
    """Measurements by name, of kind curvature by default; see below."""
    only: Several[str] | None = None
    """Names of the studies to keep; all if absent."""
    cuts: Cuts | None = None
    """Cuts through the loss landscape, shown by the figure of that name; see below."""
    figures: dict[Name, FigureSettings] = Field({})
    """Figure settings that differ from the defaults, by name (null omits a figure), and your own figures; see
    below."""
    execution: Execution = Field(Execution())
    """How the work is executed; no number depends on it; see below."""
