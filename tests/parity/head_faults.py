"""Faults of heads over latents: of their network, and of its times."""


def network(**changes):
  def fault(head, params):
    changed = head.network.clone(parent=None, name=None, **changes)
    return head.clone(parent=None, name=None, network=changed), params

  return fault


def time(**changes):
  def fault(head, params):
    changed = head.network.time.clone(parent=None, name=None, **changes)
    return network(time=changed)(head, params)

  return fault
