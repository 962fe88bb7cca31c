"""What each known dataset is: files, checksums, addresses, licence, splits and traps. Data only: opens and decides nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class File:
    """One file of a dataset, kept as `<name>.gz`; `sha256` and `size` (bytes) are those of the uncompressed content.

    `sealed` says that it belongs to the test part, which no trial may read; `optional` why a dataset is whole without it.
    """

    name: str
    size: int
    sha256: str
    sealed: bool = False
    optional: str = ""


@dataclass(frozen=True, slots=True)
class Archive:
    """A .tar or .zip file that holds a whole dataset, kept under its own name; `size` in bytes, about right if `members`.

    `sha256` is that of the file, or, where `members` is a suffix, of `name NUL sha256-in-hex` of every member of that
    suffix in the order of their names (without folders): archives that hold the same need not be the same bytes.
    `sealed` starts the names of members that only a report after the search may read.
    """

    name: str
    size: int
    sha256: str
    address: str = ""  # none where it is made by hand
    members: str = ""
    sealed: str = ""


@dataclass(frozen=True, slots=True)
class Dataset:
    """A dataset: all of its `files`, or any one of its `archives`, or what a Python package brings.

    The files lie under `address` each for itself, or are all members of `bundle`, in its folder `bundle_folder`.
    """

    name: str
    licence: str
    splits: str
    traps: str
    address: str
    files: tuple[File, ...] = ()
    archives: tuple[Archive, ...] = ()
    bundle: Archive | None = None
    bundle_folder: str = ""
    package: str | None = None  # Debian's
    package_folder: str | None = None
    python_package: str | None = None  # comes with this one, nothing to fetch

    @property
    def size(self) -> int:
        """Bytes of the files uncompressed, or of the smallest archive; 0 where nothing is kept."""
        return sum(file.size for file in self.files) or min((archive.size for archive in self.archives), default=0)


def _idx_files(*sha256s: str) -> tuple[File, ...]:
    names = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
    sizes = (47_040_016, 60_008, 7_840_016, 10_008)
    return tuple(File(*file, sealed=file[0].startswith("t10k-")) for file in zip(names, sizes, sha256s, strict=True))


IDX_SPLITS = "50,000 / 10,000 / 10,000 images: 10,000 of the official training images, drawn once, validate; official test"

# The checksums were taken of the files, except where a comment says "published".
_KNOWN = (
    Dataset(
        name="digits",
        licence="CC BY 4.0",
        splits="1,197 / 300 / 300 images of 8 x 8 pixels: scikit-learn's 1,797 in a fixed random order",
        traps="It is UCI's test set of 13 writers: a writer's digits are in all three parts. 300 images tell 98 % from 97 % badly.",
        address="https://archive.ics.uci.edu/dataset/80/optical+recognition+of+handwritten+digits",
        python_package="sklearn",
    ),
    Dataset(
        name="fashion-mnist",
        files=_idx_files(
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
        address="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        licence="MIT",
        splits=IDX_SPLITS,
        traps="Shirt, T-shirt, pullover and coat overlap: people name 83.5 % of the images rightly. A mirror image keeps its class.",
        package="dataset-fashion-mnist",
        package_folder="/usr/share/datasets/fashion-mnist",
    ),
    Dataset(
        name="mnist",
        files=_idx_files(
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
        address="https://ossci-datasets.s3.amazonaws.com/mnist/",
        licence="CC BY-SA 3.0",
        splits=IDX_SPLITS,
        traps="A mirror image is no digit: no flips. Training and validation share writers, training and test do not.",
    ),
    Dataset(
        name="imdb",
        archives=(
            Archive(
                "aclImdb_labeled_50k.tar.xz",
                20_291_008,
                "ad640c72800aec5f7b8856d2bd6e6e124eab4c0dd3a7e3aa8a93b158e036b77a",
                sealed="aclImdb/test/",
            ),
            # size and checksum as published by TensorFlow Datasets (checksums of imdb_reviews)
            Archive(
                "aclImdb_v1.tar.gz",
                84_125_825,
                "c40f74a18d3b61f90feba1e17730e0d38e8b97c05fde7008942e91923d1658fe",
                "https://ai.stanford.edu/~amaas/data/sentiment/aclImdb_v1.tar.gz",
                sealed="aclImdb/test/",
            ),
        ),
        address="https://ai.stanford.edu/~amaas/data/sentiment/",
        licence="none stated, cite Maas et al. 2011; the texts are their authors': research use",
        splits="20,000 / 5,000 / 25,000 reviews: 5,000 of the training reviews validate, as many of each class; official test",
        traps="123 texts are in both the training and the test half. Training and validation share films, training and test do not.",
    ),
    Dataset(
        name="sst2",
        files=(
            File("train.tsv", 3_806_081, "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1"),
            File("dev.tsv", 94_931, "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0"),
            File(
                "test-labeled.tsv",
                194_804,
                "c0efc56ade6e0598d0f8daca1976e232aee0bcabca8e599341cad290d9d10b3c",
                sealed=True,
                optional="GLUE publishes the test sentences without labels; trials do not need them",
            ),
        ),
        # size and checksum as published by Hugging Face (dataset_infos.json of glue); the members' MD5 that torchtext
        # published are those of the files above
        bundle=Archive(
            "SST-2.zip",
            7_439_277,
            "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
            "https://dl.fbaipublicfiles.com/glue/data/SST-2.zip",
        ),
        bundle_folder="SST-2",
        address="https://gluebenchmark.com/tasks",
        licence="none stated (Socher et al. 2013; texts from Rotten Tomatoes): research use",
        splits="67,349 phrases / 872 dev sentences / 1,821 sentences; `validation: sentences` holds out training sentences of their own",
        traps="The training set holds phrases of the same sentences: a random split of it shows 92 % where new sentences give 81-83 %.",
    ),
    Dataset(
        name="proben1",
        archives=tuple(
            Archive(name, size, "2ccbabb47b1be857ea106732665ea539dee3f0f711239bed071da12bc0c3aeef", address, members=".dt")
            for name, size, address in (
                ("proben1.tar.xz", 952_836, ""),
                (
                    "proben1-1c63a40.tar.gz",
                    2_000_000,
                    "https://github.com/jeffheaton/proben1/archive/1c63a400c5811fdd924510e08ccdba631d118c96.tar.gz",
                ),
            )
        ),
        address="https://github.com/jeffheaton/proben1",
        licence="none stated (Prechelt 1994; distributed for benchmarking, sources from UCI): research use",
        splits="50 / 25 / 25 % of each file, in its order (Prechelt 1994); the permutations 1, 2, 3 are other splits of the same rows",
        traps="Small: 54 to 2,031 rows validate, so permutations differ by more than methods do. Never pool permutations of a problem.",
    ),
)
DATASETS: dict[str, Dataset] = {known.name: known for known in _KNOWN}
