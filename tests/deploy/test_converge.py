from support.nspawn import Machine
from support.deployment import Playbooks
def test_x(machines: list[Machine], playbooks: Playbooks) -> None:
    import time
    t=time.time()
    r = playbooks.run("site.yml", machines)
    print(time.time()-t, r.stats, r.exit_code); print(r.output[-6000:])
    for m in machines[:1]:
        print(m.run("systemctl","status","antquic-server","--no-pager",check=False).stdout)
        print(m.run("journalctl","-u","antquic-server","--no-pager","-o","cat","-n","30",check=False).stdout)
    t=time.time()
    r = playbooks.run("site.yml", machines)
    print(time.time()-t, r.stats, r.exit_code, r.changed_tasks()); print(r.output[-2000:] if r.exit_code else '')
    m=machines[0]
    print(m.run("systemd-analyze","security","antquic-server","--no-pager",check=False).stdout)
    print(m.run("nft","list","ruleset").stdout)
    assert 0
