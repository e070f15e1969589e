"""RFC 9113, frame by frame, as httpwg-cli reads it."""
import re
import socket
import subprocess

from gateway import configure


def httpwg(binary, judge, folder, authority, nodes):
    """Starts gateways itself, one for all of its cases."""
    with socket.create_server(('127.0.0.1', 0)) as free:
        address = '127.0.0.1:%d' % free.getsockname()[1]
    folder.mkdir()
    configure(folder, authority, nodes, address)
    words = [judge, '-a', address, '--frame-timeout', '5000', '--connect-timeout', '5000', '--', str(folder / 'start')]
    start = f"#!/bin/sh\ncd '{folder}' && exec '{binary}' run -c config.yaml --resources resources.yaml\n"
    (folder / 'start').write_text(start)
    (folder / 'start').chmod(0o755)
    done = subprocess.run(words, capture_output=True, text=True, timeout=300, errors='replace')
    told = re.sub('\x1b\\[[0-9;]*m', '', done.stdout + done.stderr)
    passed, cases = map(int, re.search(r'Passed (\d+)/(\d+) tests', told).groups())
    print(f'httpwg: {passed} of {cases}')
    assert cases > 100 and passed == cases, told
