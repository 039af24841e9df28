"""aiortc as WHIP publisher and as WHEP player: what one sends the other sees and hears, through the running server.

    python3 aiortc_whip_whep.py http://127.0.0.1:5005 [room]

Needs aiortc (PyPI). Ends with 0 when all of it was seen; says what was missing else.
"""

import asyncio
import json
import sys
import time
import urllib.error
import urllib.request
from urllib.parse import urljoin

from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, VideoStreamTrack
from av import VideoFrame

# A hang becomes a failure after this.
PATIENCE_S = 40
SIZE = (320, 240)
FRAMES = 60


class Picture(VideoStreamTrack):
    """A bar that walks over a grey picture."""

    def __init__(self):
        super().__init__()
        self.number = 0

    async def recv(self):
        pts, time_base = await self.next_timestamp()
        width, height = SIZE
        left = self.number * 4 % (width - 16)
        row = bytearray(b"\x60" * width)
        row[left : left + 16] = b"\xe0" * 16
        self.number += 1
        frame = VideoFrame(width, height, "yuv420p")
        for plane, line in zip(frame.planes, (row, b"\x80" * (width // 2), b"\x80" * (width // 2))):
            plane.update(b"".join(bytes(line).ljust(plane.line_size, b"\x80") for _ in range(plane.height)))
        frame.pts, frame.time_base = pts, time_base
        return frame


class Session:
    """One WHIP or WHEP session: its URL and entity tag."""

    def __init__(self, endpoint):
        self.endpoint = endpoint
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.url = None
        self.tag = None
        self.links = []

    async def begin(self):
        await self.pc.setLocalDescription(await self.pc.createOffer())
        headers = {"Content-Type": "application/sdp"}
        status, answer, body = await ask("POST", self.endpoint, self.pc.localDescription.sdp, headers)
        check(status == 201, f"POST gave {status}: {body}")
        self.url = urljoin(self.endpoint, answer["Location"])
        self.tag = answer["ETag"]
        self.links = answer.get_all("Link") or []
        await self.pc.setRemoteDescription(RTCSessionDescription(body, "answer"))
        await eventually("a connection", lambda: self.pc.connectionState == "connected")

    async def trickle(self):
        """Tells a candidate that the server knows already: nothing changes."""
        lines = self.pc.localDescription.sdp.splitlines()
        ice = [next(line for line in lines if line.startswith(f"a=ice-{name}:")) for name in ("ufrag", "pwd")]
        media = next(line for line in lines if line.startswith("m="))
        mid = next(line for line in lines if line.startswith("a=mid:"))
        body = "\r\n".join([*ice, media, mid, "a=end-of-candidates", ""])
        headers = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": self.tag}
        status, _, body = await ask("PATCH", self.url, body, headers)
        check(status == 204, f"PATCH gave {status}: {body}")

    async def end(self):
        status, _, _ = await ask("DELETE", self.url)
        check(status == 200, f"DELETE gave {status}")
        status, _, _ = await ask("GET", self.url)
        check(status == 404, f"GET after DELETE gave {status}")
        await self.pc.close()


def request(method, url, body, headers):
    data = body.encode() if body is not None else None
    asked = urllib.request.Request(url, data=data, headers=headers, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=PATIENCE_S) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read().decode()


async def ask(method, url, body=None, headers=None):
    return await asyncio.to_thread(request, method, url, body, headers or {})


def check(holds, sentence):
    if not holds:
        raise SystemExit(f"failed: {sentence}")


async def eventually(what, probe):
    start = time.monotonic()
    while not probe():
        check(time.monotonic() - start < PATIENCE_S, f"never: {what}")
        await asyncio.sleep(0.05)
    print(f"  {what}: after {time.monotonic() - start:.2f} s")


async def drain(track, seen):
    while True:
        frame = await track.recv()
        seen.append((frame.width, frame.height) if track.kind == "video" else frame.samples)


async def main(base, room):
    publisher = Session(f"{base}/whip/{room}")
    publisher.pc.addTrack(AudioStreamTrack())
    publisher.pc.addTrack(Picture())
    await publisher.begin()
    await publisher.trickle()

    player = Session(f"{base}/whep/{room}?wait=1")
    seen = {"audio": [], "video": []}
    tasks = []
    player.pc.on("track", lambda track: tasks.append(asyncio.ensure_future(drain(track, seen[track.kind]))))
    for kind in seen:
        player.pc.addTransceiver(kind, direction="recvonly")
    await player.begin()
    await player.trickle()
    check(any("urn:ietf:params:whep:ext:core:layer" in link for link in player.links), f"no link to layers: {player.links}")
    await eventually(f"{FRAMES} pictures", lambda: len(seen["video"]) >= FRAMES)
    await eventually(f"{FRAMES} frames of sound", lambda: len(seen["audio"]) >= FRAMES)
    check(set(seen["video"][-10:]) == {SIZE}, f"pictures of another size: {set(seen['video'])}")
    layer = json.dumps({"mediaId": "1", "maxTemporalLayerId": 0})
    status, _, body = await ask("POST", f"{player.url}/layer", layer, {"Content-Type": "application/json"})
    check(status == 200, f"the choice of a layer gave {status}: {body}")

    await player.end()
    await publisher.end()
    for task in tasks:
        task.cancel()
    print("aiortc publishes by WHIP and watches by WHEP")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        raise SystemExit(__doc__)
    asyncio.run(main(sys.argv[1].rstrip("/"), sys.argv[2] if len(sys.argv) > 2 else "aiortc"))
