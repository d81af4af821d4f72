#!/usr/bin/env python3
"""How long a reader waits while operations are published: mount-latency.py VMRESCUE (a release build; root, mkntfs).

One program writes 24 MB and syncs, over and over, another writes small files; a third opens and reads 3,000 files that nobody has
read yet. Prints the times of the third, and how long a publish takes.
"""
import os, subprocess, sys, threading, time, tempfile
tool=sys.argv[1]; d=tempfile.mkdtemp(); img=d+'/v.raw'
open(img,'wb').truncate(1<<30)
subprocess.run(['mkntfs','-FQq',img],check=True,capture_output=True)
m=d+'/m'; os.mkdir(m)
p=subprocess.Popen([tool,'mount',img,m,'--volume','#1:','--write','--interval','0'],stdout=subprocess.PIPE,text=True); p.stdout.readline()
os.mkdir(m+'/r')
for n in range(3000):
    with open(f'{m}/r/f{n}','wb') as f: f.write(b'x'*5000)
os.sync(); subprocess.run(['fusermount3','-u',m],check=True); p.wait()
p=subprocess.Popen([tool,'mount',img,m,'--volume','#1:','--write','--interval','0'],stdout=subprocess.PIPE,text=True); p.stdout.readline()
stop=False; pub=[]
def writer():
    n=0
    while not stop:
        fd=os.open(f'{m}/big{n%3}',os.O_CREAT|os.O_WRONLY)
        os.write(fd,os.urandom(1<<20)*24)
        t=time.monotonic(); os.fsync(fd); pub.append(time.monotonic()-t); os.close(fd); n+=1
def other():
    n=0
    while not stop:
        with open(f'{m}/small{n%50}','wb') as f: f.write(b'y'*20000)
        n+=1
ts=[threading.Thread(target=writer),threading.Thread(target=other)]
[t.start() for t in ts]
lat=[]; end=time.monotonic()+12; n=0
while time.monotonic()<end and n<3000:
    t=time.monotonic()
    with open(f'{m}/r/f{n}','rb') as f: assert len(f.read())==5000
    lat.append(time.monotonic()-t); n+=1; time.sleep(0.003)
stop=True; [t.join() for t in ts]
lat.sort(); q=lambda f: lat[int(f*(len(lat)-1))]*1000
print(f'{len(lat)} reads, {len(pub)} publishes of median {sorted(pub)[len(pub)//2]:.2f} s; median {q(.5):.2f} ms, 90 % {q(.9):.2f}, 99 % {q(.99):.1f}, worst {q(1):.0f} ms')
subprocess.run(['fusermount3','-u',m]); p.wait(); subprocess.run(['rm','-rf',d])
