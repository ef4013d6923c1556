"""A narrower detector out of a trained one, to be trained on from there.

    python -m yolo.slim --cfg yolo/cfg/face106-wide.cfg --weights yolo/runs/wide/best.weights \
        --to yolo/cfg/face106-det.cfg --out yolo/runs/slim.weights
    python -m yolo.train --expID slim --start yolo/runs/slim.weights ...

The two cfg files have the same layers; some convolutions of the second have fewer filters. Of these the ones that
matter most to the next layer are kept (Li et al. 2017, "Pruning Filters for Efficient ConvNets", who rank by the size
of the filter; here the batch norm says how much of it comes out). The result is a start, not a detector.
"""

import argparse
from pathlib import Path

import torch

from .darknet import Convolution, Darknet, parse_cfg
from .evaluate import existing


def importance(layer, reader):
    """How much the next convolution makes of each of a layer's filters (F,): the size of what comes out of the batch
    norm times that of the weights which read it.
    """
    out = torch.hypot(layer.norm.weight, layer.norm.bias)
    return out * reader.conv.weight.abs().sum((0, 2, 3))


def strongest(wide, index, count):
    """The `count` filters of a layer to keep, in their order. Raises ValueError where others than the next layer read
    it.
    """
    layer, reader = wide.layers[index : index + 2]
    if index in wide.kept or not isinstance(reader, Convolution) or layer.norm is None:
        raise ValueError(
            f"layer {index} of {wide.cfgfile} cannot be narrowed: it needs a batch norm, and the next convolution as "
            "its only reader"
        )
    return importance(layer, reader).topk(count).indices.sort().values


@torch.no_grad()
def slim(wide, narrow):
    """Fill `narrow` (Darknet) with the strongest filters of `wide`; -> narrow. Raises ValueError where they differ by
    more than the number of filters.
    """
    theirs, ours = ([{**block, "filters": ""} for block in parse_cfg(net.cfgfile)[1:]] for net in (wide, narrow))
    if theirs != ours:
        odd = next((i for i, pair in enumerate(zip(theirs, ours)) if pair[0] != pair[1]), min(len(theirs), len(ours)))
        raise ValueError(f"{narrow.cfgfile} has other layers than {wide.cfgfile}, from layer {odd} on")
    read = None  # the filters kept of the layer before; None: all
    for index, (old, new) in enumerate(zip(wide.layers, narrow.layers)):
        if not isinstance(old, Convolution):
            read = None
            continue
        count = new.conv.out_channels
        if count > old.conv.out_channels:
            raise ValueError(
                f"layer {index}: {count} filters in {narrow.cfgfile}, {old.conv.out_channels} to take from"
            )
        kept = strongest(wide, index, count) if count < old.conv.out_channels else None
        for source, target in zip(old.stored(), new.stored()):
            part = source if kept is None else source[kept]
            part = part if read is None or part.ndim == 1 else part[:, read]
            if part.shape != target.shape:
                raise ValueError(
                    f"layer {index}: {tuple(target.shape)} in {narrow.cfgfile}, {tuple(part.shape)} to take"
                )
            target.copy_(part)
        read = kept
    narrow.seen = wide.seen
    return narrow


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", type=existing, required=True, help="of the trained network")
    parser.add_argument("--weights", type=existing, required=True)
    parser.add_argument("--to", type=existing, required=True, help="the narrower network's cfg")
    parser.add_argument("--out", type=Path, required=True, help="the .weights file to write")
    args = parser.parse_args(argv)
    wide = Darknet(args.cfg).load_weights(args.weights)
    narrow = slim(wide, Darknet(args.to))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    narrow.save_weights(args.out)
    numbers = [sum(p.numel() for p in net.parameters()) for net in (wide, narrow)]
    print(f"{args.out}: {numbers[1]:,} parameters of {numbers[0]:,}")


if __name__ == "__main__":
    main()
