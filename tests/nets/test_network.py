"""What a network says about itself, whoever asks."""

import pytest

from fastbsn.nets import DBSN, Network, UNet


@pytest.mark.parametrize("net, kind, multiple", [(UNet(2, 6, 3), "student", 8), (DBSN(2, 8, 1), "teacher", 1)])
def test_a_network_describes_itself(net: Network, kind: str, multiple: int) -> None:
    assert (net.kind, net.channels, net.multiple) == (kind, 2, multiple)
    assert net.radius > 0 and net.radius % multiple == 0
    assert type(net)(**net.config).config == net.config


def test_a_network_without_a_radius_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="radius"):
        type("Nameless", (Network,), {})()
