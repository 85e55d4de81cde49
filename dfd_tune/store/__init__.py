"""The store: the folder or bucket that holds datasets, teachers, banks, trials and searches, each under its key.

Layout, of a folder; a bucket has the same names (bucket_entries.py says how its entries differ):

    datasets/<key>/      train.arrow, validation.arrow, test.arrow, dataset.json
    rescans/<key>.json   which datasets were made of files that look alike and are not
    downloads/           archives that torchvision fetched
    low_res/<key>/       train.npy, validation.npy, test.npy, camera.json
    pretrained/<key>/    network.safetensors, network.json          teachers and base networks
    teachers/<digest>/   teacher.safetensors or .pt2, teacher.json  teachers that were trained elsewhere
    frontends/<key>/     network.safetensors, network.json          super-resolution front ends
    banks/<key>/         features.npy, bank.json                    features of a teacher
    backbones/<digest>.py                                           text of a backbone from a user's own file
    trials/<key>/        student.safetensors, result.json
    checkpoints/<key>/<epoch>/  state.safetensors, state.json       trainings that are under way
    searches/<name>/     search.json, trials/<key>.json, run.json, logs/, best/, report files
    mlflow.db, mlflow_artifacts/
    leases/              lock files, empty; beside those that are held, who holds them
    store.json           the store's identity, its format, and the release that made it

Each entry has a manifest, the sizes and digests of its files. Not for: what the files mean.
"""

from dfd_tune.store.bucket import BucketError as BucketError
from dfd_tune.store.bucket import each as each
from dfd_tune.store.copies import Copies as Copies
from dfd_tune.store.files import is_passing as is_passing
from dfd_tune.store.files import read_json as read_json
from dfd_tune.store.files import replacing as replacing
from dfd_tune.store.files import write_json as write_json
from dfd_tune.store.files import write_text as write_text
from dfd_tune.store.in_bucket import BucketStore as BucketStore
from dfd_tune.store.in_folder import FolderStore as FolderStore
from dfd_tune.store.in_folder import damages_in as damages_in
from dfd_tune.store.kinds import BACKBONES as BACKBONES
from dfd_tune.store.kinds import CHECKPOINTS as CHECKPOINTS
from dfd_tune.store.kinds import INCOMING as INCOMING
from dfd_tune.store.kinds import KINDS as KINDS
from dfd_tune.store.kinds import RESULT_FILE as RESULT_FILE
from dfd_tune.store.kinds import STUDENT_FILE as STUDENT_FILE
from dfd_tune.store.leases import beating as beating
from dfd_tune.store.litter import Litter as Litter
from dfd_tune.store.litter import clock_of as clock_of
from dfd_tune.store.litter import listing as listing
from dfd_tune.store.litter import litter_of as litter_of
from dfd_tune.store.litter import remove_litter as remove_litter
from dfd_tune.store.manifests import MANIFEST_FILE as MANIFEST_FILE
from dfd_tune.store.manifests import manifest_of as manifest_of
from dfd_tune.store.manifests import read_whole as read_whole
from dfd_tune.store.manifests import read_whole_json as read_whole_json
from dfd_tune.store.manifests import sound as sound
from dfd_tune.store.manifests import whole as whole
from dfd_tune.store.manifests import write_manifest as write_manifest
from dfd_tune.store.opening import existing_store as existing_store
from dfd_tune.store.opening import open_store as open_store
from dfd_tune.store.opening import problem_with_name as problem_with_name
from dfd_tune.store.seals import sealed as sealed
from dfd_tune.store.store import LATE_SECONDS as LATE_SECONDS
from dfd_tune.store.store import Store as Store
