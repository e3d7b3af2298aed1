"""Source that the bench runs on a board: MicroPython, kept as text. Names begin with _t, so that they collide with nobody's.

A file goes to <path>.part, is read back and hashed there, and takes its name only when the bench agrees to the hash. Names
in renames are relative to the root, where every fresh interpreter is: the unix port before 1.29 garbles two absolute ones.
"""

FACTS = """
def _t_facts():
 import sys,os,machine,binascii
 f={'version':None,'id':None,'pending':None,'point':None}
 try:
  import firmware
  f['version']=firmware.VERSION
 except Exception: pass
 try:
  import json
  with open('/settings.json') as s: f['id']=json.load(s)['id']
 except Exception: pass
 try:
  from firmware import enrolment
  f.update(enrolment.state())
 except Exception: pass
 for m in list(sys.modules):
  if m=='firmware' or m.startswith('firmware.'): del sys.modules[m]
 v=os.statvfs('/')
 i=sys.implementation
 f.update(machine=getattr(i,'_machine',''),python='.'.join(str(n) for n in i[1][:3]),platform=sys.platform,
  mac=binascii.hexlify(machine.unique_id()).decode(),free=v[0]*v[3])
 print(f)
_t_facts()
del _t_facts
"""

LOADER = """
import sys,os,io,hashlib,binascii
try:
 import deflate
except ImportError:
 deflate=None
def _t_sha(p):
 h=hashlib.sha256()
 b=bytearray(1024)
 m=memoryview(b)
 with open(p,'rb') as f:
  while True:
   n=f.readinto(b)
   if not n: return binascii.hexlify(h.digest()).decode()
   h.update(m[:n])
def _t_tree(p,d):
 try:
  s=os.stat(p)
 except OSError:
  return d
 if s[0]&0x4000:
  for e in os.ilistdir(p):
   if p!='/' or e[0]!='rom': _t_tree(('' if p=='/' else p)+'/'+e[0],d)
 else:
  d[p]=_t_sha(p)
 return d
def _t_gone(p):
 try: os.remove(p)
 except OSError as e:
  if e.errno!=2: raise
def _t_free():
 v=os.statvfs('/')
 return v[0]*v[3]
def _t_get(p):
 with open(p,'rb') as f:
  while True:
   b=f.read(768)
   if not b: return
   sys.stdout.write(binascii.b2a_base64(b))
def _t_put(p,sizes,z):
 q=p[1:]+'.part'
 d=''
 for n in p.split('/')[1:-1]:
  d+='/'+n
  try: os.mkdir(d)
  except OSError as e:
   if e.errno!=17: raise
 try:
  with open('/'+q,'wb') as f:
   for n in sizes:
    sys.stdout.write('+')
    b=binascii.a2b_base64(sys.stdin.buffer.read(n))
    if z: b=deflate.DeflateIO(io.BytesIO(b),deflate.RAW,12).read()
    f.write(b)
  sys.stdout.write('='+_t_sha('/'+q))
  if sys.stdin.buffer.read(1)!=b'y': raise ValueError('refused')
  os.rename(q,p[1:])
 except BaseException:
  try: _t_gone('/'+q)
  except OSError: pass
  raise
"""

# Any module of a board's pins: it alone starts the watchdog, which nothing stops.
WATCHED = "any(m.startswith('firmware.boards.') for m in __import__('sys').modules)"

FORGET_FIRMWARE = (
    "for _t in [m for m in __import__('sys').modules if m.split('.')[0]=='firmware']: del __import__('sys').modules[_t]"
)
