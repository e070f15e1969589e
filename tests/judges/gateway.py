"""The gateway under judgement: its settings, its objects, its start."""
import json
import subprocess

from common import wait_for
from nodes import DEFINITIONS


def ssl(authority, name, is_rsa, **more):
    certificate, key = authority.issue(name, is_rsa)
    return {'id': name, 'snis': [name], 'cert': certificate, 'key': key, **more}


def configure(folder, authority, nodes, listen):
    settings = {
        'listen': [listen],
        'ssl': {'listen': ['127.0.0.1:0'], 'fallback_sni': 'a.test'},
        'cores': 1,
        'state_dir': str(folder / 'state'),
        'access_log': {'enabled': False},
    }
    for name in ('metrics', 'status', 'admin', 'control'):
        settings[name] = {'listen': '127.0.0.1:0'}
    (folder / 'config.yaml').write_text(json.dumps(settings))
    upstream = lambda node, **more: {'nodes': {node: 1}, **more}
    transcode = lambda method, **more: {'grpc-transcode': {'proto_id': 'judge', 'service': 'judge.Judge', 'method': method, **more}}
    objects = {
        'protos': [{'id': 'judge', 'content': DEFINITIONS}],
        'routes': [
            {'id': 'web', 'uri': '/web/*', 'plugins': {'grpc-web': {}}, 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'say', 'uri': '/say', 'plugins': transcode('Unary'), 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'deny', 'uri': '/deny', 'plugins': transcode('Deny', show_status_in_body=True), 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'grpc', 'uri': '/judge.Judge/*', 'upstream': upstream(nodes['grpc'], scheme='grpc')},
            {'id': 'ws', 'uri': '/ws', 'enable_websocket': True, 'upstream': upstream(nodes['ws'])},
            {'id': 'origin', 'uri': '/*', 'upstream': upstream(nodes['origin'])},
        ],
        'ssls': [
            ssl(authority, 'a.test', is_rsa=True),
            ssl(authority, 'modern.test', is_rsa=False, ssl_protocols=['TLSv1.3']),
        ],
    }
    (folder / 'resources.yaml').write_text(json.dumps(objects))


def started(binary, folder, authority, nodes):
    configure(folder, authority, nodes, '127.0.0.1:0')
    ready = folder / 'ready.json'
    gateway = subprocess.Popen(
        [binary, 'run', '-c', 'config.yaml', '--resources', 'resources.yaml', '--ready-file', str(ready)], cwd=folder
    )
    wait_for(ready.exists, lambda: gateway.poll() is None)
    told = json.loads(ready.read_text())
    return gateway, told['http'][0], told['https'][0]
