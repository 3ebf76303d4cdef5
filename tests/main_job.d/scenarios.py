"""What is done, in order. Each scenario has places of its own and can run alone after `start`."""

import evicting
import expiring
import fault
import mounted
import reading
import rotting
import stores
import tiering
import writing


def by_name():
    order = [
        reading.start,
        reading.refusals,
        reading.load_and_get,
        reading.cold_and_get,
        reading.once_for_all,
        reading.awkward_keys,
        reading.behind_the_back,
        reading.one_version,
        evicting.evictions,
        expiring.expiry,
        tiering.tiers,
        writing.write_through,
        writing.write_programs,
        writing.write_attributes,
        writing.own_files,
        stores.store_changes,
        stores.store_exports,
        stores.store_uploads,
        stores.store_without_copies,
        stores.store_back,
        stores.store_renewed,
        mounted.mount_reads,
        mounted.mount_truth,
        mounted.mount_programs,
        mounted.two_mounts,
        fault.kill_while_loading,
        fault.lose_a_part,
        fault.kill_while_writing,
        fault.clean_restart,
        rotting.five_workers,
        mounted.mount_ends,
        fault.credentials_of_the_node,
        fault.secrets,
    ]
    return {scenario.__name__: scenario for scenario in order}


def played_once():
    """What a usual run leaves to its last deployment: what these show hangs on the store and what is said to it, not on which
    process says it."""
    return {
        scenario.__name__
        for scenario in [
            reading.one_version,
            expiring.expiry,
            writing.write_programs,
            writing.write_attributes,
            stores.store_changes,
            stores.store_exports,
            stores.store_uploads,
            stores.store_without_copies,
            stores.store_back,
            stores.store_renewed,
            mounted.mount_programs,
        ]
    }
