"""A search on a cluster, from a laptop: Ray's own launcher and jobs, with what a search needs around them.

    files.py     a Ray cluster file, read;   checks.py   what is wrong with one
    up.py        clusters started and ended;   launcher.py   Ray's own launcher;   credentials.py   those of clouds
    tunnel.py    the head's job port and files, through SSH;   ssh.py   commands on hosts
    reach.py     how this machine reaches a cluster
    launch.py    a search planned here, submitted, followed, brought back
    commands.py  what is asked about searches there
    jobs.py      Ray's jobs;   package.py   what goes along with one
    send.py      images and weights sent there;   fetch.py   a search brought here
    remote.py    what a job does there;   incoming.py   what was sent, taken in;   probe.py   what the nodes say

The rest of the program does not know where Ray came from. Needs the extra dfd-tune[cluster]. Not for: the search
itself, which runs there as it would here (search/).
"""
