"""The gateway under judgement: its settings, its objects, its start."""
import json
import subprocess
import urllib.request

from common import PATIENCE, START_SECONDS, wait_for
from nodes import DEFINITIONS


def ssl(authority, name, is_rsa, **more):
    certificate, key = authority.issue(name, is_rsa)
    return {'id': name, 'snis': [name], 'cert': certificate, 'key': key, **more}


def configure(folder, authority, nodes, listen):
    """Writes settings and objects; the ssls among them."""
    settings = {
        'listen': [listen],
        'ssl': {'listen': ['127.0.0.1:0'], 'fallback_sni': 'a.test', 'trusted_certificate': str(authority.path)},
        'cores': 1,
        'state_dir': str(folder / 'state'),
        'access_log': {'enabled': False},
    }
    for name in ('metrics', 'status', 'admin', 'control'):
        settings[name] = {'listen': '127.0.0.1:0'}
    (folder / 'config.yaml').write_text(json.dumps(settings))
    upstream = lambda node, **more: {'nodes': {node: 1}, **more}
    transcode = lambda method, **more: {'grpc-transcode': {'proto_id': 'judge', 'service': 'judge.Judge', 'method': method, **more}}
    ssls = [
        ssl(authority, 'a.test', is_rsa=True),
        ssl(authority, 'modern.test', is_rsa=False, ssl_protocols=['TLSv1.3']),
    ]
    objects = {
        'protos': [{'id': 'judge', 'content': DEFINITIONS}],
        'routes': [
            {'id': 'web', 'uri': '/web/*', 'plugins': {'grpc-web': {}}, 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'say', 'uri': '/say', 'plugins': transcode('Unary'), 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'deny', 'uri': '/deny', 'plugins': transcode('Deny', show_status_in_body=True), 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'grpcs', 'uri': '/judge.Judge/*', 'host': 'secure.test', 'upstream': upstream(nodes['grpcs'], scheme='grpcs')},
            {'id': 'breaking', 'uri': '/judge.Judge/Break*', 'upstream': upstream(nodes['breaking'])},
            {'id': 'grpc', 'uri': '/judge.Judge/*', 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'ws', 'uri': '/ws', 'enable_websocket': True, 'upstream': upstream(nodes['ws'])},
            {'id': 'page', 'uri': '/page/*', 'upstream': upstream(nodes['page'])},
            {'id': 'origin', 'uri': '/*', 'upstream': upstream(nodes['origin'])},
        ],
        'ssls': ssls,
    }
    (folder / 'resources.yaml').write_text(json.dumps(objects))
    return ssls


class Gateway:
    """A gateway that runs, and where: `plain`, `secure`; `certificate` is that of a.test."""

    def __init__(self, binary, folder, authority, nodes):
        self.certificate = configure(folder, authority, nodes, '127.0.0.1:0')[0]['cert']
        ready = folder / 'ready.json'
        words = [binary, 'run', '-c', 'config.yaml', '--resources', 'resources.yaml', '--ready-file', str(ready)]
        self.process = subprocess.Popen(words, cwd=folder)
        wait_for(ready.exists, lambda: self.process.poll() is None)
        told = json.loads(ready.read_text())
        self.plain, self.secure, self.metrics = told['http'][0], told['https'][0], told['metrics']

    def metric(self, name):
        """The sum of all lines of the metrics that begin so."""
        with urllib.request.urlopen(f'http://{self.metrics}/apisix/prometheus/metrics', timeout=PATIENCE) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(' ', 1)[1]) for line in lines if line.startswith(name))

    def end(self):
        """Its exit code."""
        self.process.terminate()
        return self.process.wait(START_SECONDS)
